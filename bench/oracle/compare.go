package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
)

// The bounds. Each comparison makes four tests, whose figures are standard
// deviations of the normal distribution (of Student's, nearly that from some
// hundred samples on): by chance one of them reaches 4.5 once in 147,000 times, and
// one about the size of an effect once in 15,800. A run of one engine in all states
// makes some 590 tests, and so raises a false alarm in 0.9 % of runs at most (less,
// since the tests of one comparison look at the same values). The report says it of
// the run at hand. The order of the kinds is tossed for, so noise that comes and goes
// meets all alike and makes no alarm; but with fewer than 200 samples Student's
// distribution is the wider one, and alarms are likelier.
const (
	bound       = 4.5  // standard deviations
	effectBound = 20.0 // µs, on recover, on a throttled login, and after them
	effectSure  = 4.0  // standard errors: an effect that they explain isn't one
)

// trimAt is the quantile of the values of both kinds together below which the
// trimmed means look: what is above is mostly the machine's doing, and hides
// small effects.
const trimAt = 0.9

// comparison holds one kind of address beside another.
type comparison struct {
	Request string     `json:"request"`
	Kinds   [2]string  `json:"kinds"`
	Among   string     `json:"among"` // which samples, or what of them
	Unit    string     `json:"unit"`  // of medians and effects: "µs", "%" or "s"
	Samples [2]int     `json:"samples"`
	Median  [2]float64 `json:"median"` // 0 where classes are joined
	Effect  effect     `json:"effect"`
	Trimmed effect     `json:"trimmed"` // below the 90th percentile
	Rank    float64    `json:"rank_z"`
	Shape   float64    `json:"shape_z"` // Kolmogorov and Smirnov's test
	Worst   float64    `json:"worst"`   // of the four, by its absolute value
	// Info: the kinds can be distinguished without asking, so there is no verdict.
	Info    bool   `json:"info,omitempty"`
	effects bool   // count for their size, too
	Broken  string `json:"broken,omitempty"` // why
}

// fewest is how many values of each kind are needed to compare them.
const fewest = 10

// compare compares two samples, of times in µs; nothing where one of them is too
// small. Where that is asked for, an effect counts for its size too.
func compare(request string, kinds [2]kind, among string, a, b []float64, effects bool) []comparison {
	if min(len(a), len(b)) < fewest {
		return nil
	}
	c := comparison{
		Request: request, Kinds: [2]string{kinds[0].String(), kinds[1].String()}, Among: among, Unit: "µs",
		Samples: [2]int{len(a), len(b)}, Median: [2]float64{median(a), median(b)},
		Effect: welch(a, b), Rank: rankSum(a, b), Shape: deviations(kolmogorovSmirnov(a, b)),
	}
	if low, low2 := below(a, b, trimAt); min(len(low), len(low2)) >= fewest/2 {
		c.Trimmed = welch(low, low2)
	}
	c.effects = effects
	c.judge()
	return []comparison{c}
}

// together joins comparisons of the same kinds among classes that have no sample
// in common. Each class's effect has the weight that its error gives it: what
// differs besides the hash differs alike in all of them, and the cheap ones show
// it best.
func together(within []comparison) []comparison {
	if len(within) == 0 {
		return nil
	}
	c := within[0]
	c.Among, c.Samples, c.Median, c.Rank, c.Shape, c.Broken = "classes together", [2]int{}, [2]float64{}, 0, 0, ""
	var effects, trimmed []effect
	for _, w := range within {
		c.Samples[0] += w.Samples[0]
		c.Samples[1] += w.Samples[1]
		c.Rank += w.Rank / math.Sqrt(float64(len(within)))
		effects, trimmed = append(effects, w.Effect), append(trimmed, w.Trimmed)
	}
	c.Effect, c.Trimmed = weighted(effects), weighted(trimmed)
	c.judge()
	return []comparison{c}
}

func (c *comparison) judge() {
	c.Worst = max(math.Abs(c.Effect.T), math.Abs(c.Trimmed.T), math.Abs(c.Rank), c.Shape)
	if c.Worst >= bound {
		c.Broken = over(c.Worst)
		return
	}
	for _, e := range []effect{c.Effect, c.Trimmed} {
		if c.effects && math.Abs(e.Size) > effectBound && math.Abs(e.T) >= effectSure {
			c.Broken = fmt.Sprintf("%v > %.0f µs", e, effectBound)
		}
	}
}

func over(figure float64) string { return fmt.Sprintf("%.1f ≥ %.1f", figure, bound) }

// mix compares in which proportions three classes occur.
type mix struct {
	What   string    `json:"what"` // is counted
	Kinds  [2]string `json:"kinds"`
	Counts [2]counts `json:"counts"` // in each class
	Worst  float64   `json:"worst"`
	Broken string    `json:"broken,omitempty"`
}

func compareMix(what string, kinds [2]kind, a, b counts) mix {
	m := mix{What: what, Kinds: [2]string{kinds[0].String(), kinds[1].String()}, Counts: [2]counts{a, b}, Worst: deviations(homogeneity(a, b))}
	if m.Worst >= bound {
		m.Broken = over(m.Worst)
	}
	return m
}

// findClasses finds out the class of each address from the times of its logins,
// as an attacker would: of several times for the same address the shortest one
// has the least noise, and the classes lie far apart. Which times belong to which
// class is learned from accounts whose class is known; but then it is found for
// all kinds by the same rule, so that what it gets wrong is wrong for all alike.
// It says how many accounts with a hash it put into another class than theirs.
func findClasses(s *series) (mistaken int) {
	least := make(map[*subject]float64)
	for _, x := range s.samples {
		if t, ok := least[x.subject]; !ok || x.took < t {
			least[x.subject] = x.took
		}
	}
	var times [len(classes)][]float64
	for u, t := range least {
		if u.kind == known {
			times[u.made] = append(times[u.made], t)
		}
	}
	order := make([]int, len(classes)) // by cost
	var centre [len(classes)]float64
	for c := range classes {
		order[c], centre[c] = c, median(times[c])
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(centre[a], centre[b]) })
	for u, t := range least {
		at := sort.Search(len(order)-1, func(i int) bool { return t < math.Sqrt(centre[order[i]]*centre[order[i+1]]) })
		u.found = order[at]
		if u.made >= 0 && u.made != u.found {
			mistaken++
		}
	}
	return mistaken
}
