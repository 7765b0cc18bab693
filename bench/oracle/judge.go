package main

import "math"

// The pairs that must look the same.
var (
	loginPairs   = [][2]kind{{known, unknown}, {revoked, unknown}, {stepped, unknown}, {invited, unknown}, {known, revoked}, {known, stepped}}
	recoverPairs = [][2]kind{{known, unknown}, {revoked, unknown}, {stepped, unknown}, {known, revoked}, {known, stepped}}
)

func took(x sample) float64  { return x.took }
func after(x sample) float64 { return x.after }
func retry(x sample) float64 { return x.retry }

// values are what is wanted of the samples of a kind that are wanted.
func (s *series) values(k kind, want func(sample) bool, of func(sample) float64) (all []float64) {
	for _, x := range s.samples {
		if x.subject.kind == k && (want == nil || want(x)) {
			all = append(all, of(x))
		}
	}
	return all
}

// judgeLogin compares the times of refused logins in each way in which an
// attacker could use them.
//
// The cost of a hash is a property of the address: of an account, by its hash;
// of any other address, by what kwai picks for it. So an address counts once
// where costs are mixed, however often it was asked for: a second time it tells
// nothing new about the mixture, and would only seem to.
func judgeLogin(s *series) (all []comparison) {
	again := s.again()
	for _, p := range loginPairs {
		logins := func(among string, want func(sample) bool) []comparison {
			return compare(s.name, p, among, s.values(p[0], want, took), s.values(p[1], want, took), false)
		}
		all = append(all, logins("each address once", func(x sample) bool { return x.pass == 0 })...)
		var within []comparison
		for c := range classes {
			within = append(within, logins(classes[c].name, func(x sample) bool { return x.subject.found == c })...)
		}
		all = append(append(all, within...), together(within)...)
		for _, c := range compare(s.name, p, "each address again, change in %", again[p[0]], again[p[1]], false) {
			c.Unit = "%"
			all = append(all, c)
		}
		all = append(all, compare("after "+s.name, p, "all", s.values(p[0], nil, after), s.values(p[1], nil, after), false)...)
	}
	return all
}

// again is by how much the second time of each address differs from the first,
// as a hundredfold logarithm, which is nearly per cent: a cost that is picked anew
// each time would give an unknown address away. Empty where there is one pass.
func (s *series) again() (all [kinds][]float64) {
	first := make(map[*subject]float64)
	for _, x := range s.samples {
		if x.pass == 0 {
			first[x.subject] = x.took
		}
	}
	for _, x := range s.samples {
		if t, ok := first[x.subject]; ok && x.pass == 1 {
			all[x.subject.kind] = append(all[x.subject.kind], 100*math.Abs(math.Log(x.took/t)))
		}
	}
	return all
}

// judgeMix compares which classes the addresses were found in.
func judgeMix(subjects *[kinds][]*subject) (all []mix) {
	var n [kinds]counts
	for _, k := range loginKinds {
		for _, u := range subjects[k] {
			if u.found >= 0 {
				n[k][u.found]++
			}
		}
	}
	for _, p := range loginPairs {
		all = append(all, compareMix("addresses in each class of cost", p, n[p[0]], n[p[1]]))
	}
	return all
}

// judgeAlike compares the times of what costs the same for all addresses.
func judgeAlike(s *series, pairs [][2]kind, effects bool) (all []comparison) {
	for _, p := range pairs {
		all = append(all, compare(s.name, p, "all", s.values(p[0], nil, took), s.values(p[1], nil, took), effects)...)
		all = append(all, compare("after "+s.name, p, "all", s.values(p[0], nil, after), s.values(p[1], nil, after), effects)...)
	}
	return all
}

// judgeRecover compares the times of recover. A malformed address is answered
// without writing it down; that anyone can tell beforehand, so its times are shown
// and not judged.
func judgeRecover(s *series) []comparison {
	shown := judgeAlike(s, [][2]kind{{malformed, unknown}}, true)
	for i := range shown {
		shown[i].Info, shown[i].Broken = true, ""
	}
	return append(judgeAlike(s, recoverPairs, true), shown...)
}

// judgeRetry compares how long refused addresses have to wait. An address
// counts once: until when it must wait doesn't change.
func judgeRetry(s *series) (all []comparison) {
	once := func(x sample) bool { return x.pass == 0 }
	for _, p := range loginPairs {
		for _, c := range compare("Retry-After", p, "each address once", s.values(p[0], once, retry), s.values(p[1], once, retry), false) {
			c.Unit = "s"
			all = append(all, c)
		}
	}
	return all
}

// judgeParts compares how often the kinds get the answers that are left out.
func judgeParts(s *series) (all []mix) {
	for _, p := range loginPairs {
		all = append(all, compareMix("answers in time, late and others", p, s.parts[p[0]], s.parts[p[1]]))
	}
	return all
}
