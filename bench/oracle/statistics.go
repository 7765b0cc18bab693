package main

import (
	"math"
	"slices"
)

// effect is how far the means of two samples lie apart.
type effect struct {
	Size  float64 `json:"size"`  // the first's mean less the second's, in their unit
	Error float64 `json:"error"` // its standard error
	T     float64 `json:"t"`     // Welch's t: one by the other
}

// welch compares two means without taking the variances for equal (Welch,
// Biometrika 34, 1947). Each sample has at least two values.
func welch(a, b []float64) effect {
	meanA, varA := moments(a)
	meanB, varB := moments(b)
	e := effect{Size: meanA - meanB, Error: math.Sqrt(varA/float64(len(a)) + varB/float64(len(b)))}
	switch {
	case e.Error > 0:
		e.T = e.Size / e.Error
	case e.Size != 0:
		e.T = math.Copysign(mostDeviations, e.Size)
	}
	return e
}

// weighted is the mean of independent effects, each with the inverse square of
// its error as its weight; those without an error don't count.
func weighted(all []effect) (mean effect) {
	weights := 0.0
	for _, e := range all {
		if e.Error > 0 {
			w := 1 / (e.Error * e.Error)
			mean.Size += w * e.Size
			weights += w
		}
	}
	if weights == 0 {
		return effect{}
	}
	mean.Size /= weights
	mean.Error = 1 / math.Sqrt(weights)
	mean.T = mean.Size / mean.Error
	return mean
}

func moments(x []float64) (mean, variance float64) {
	for _, v := range x {
		mean += v
	}
	mean /= float64(len(x))
	for _, v := range x {
		variance += (v - mean) * (v - mean)
	}
	return mean, variance / float64(len(x)-1)
}

// below leaves of both samples the values below a quantile of all of them
// together. Where both come from one distribution that is the same cut for both,
// and doesn't bring them apart.
func below(a, b []float64, q float64) (a2, b2 []float64) {
	limit := quantile(slices.Concat(a, b), q)
	over := func(v float64) bool { return v >= limit }
	return slices.DeleteFunc(slices.Clone(a), over), slices.DeleteFunc(slices.Clone(b), over)
}

// quantile is the nearest rank: the smallest value that a part q of them, above
// 0 and up to 1, doesn't exceed; 0 where there are none.
func quantile(x []float64, q float64) float64 {
	if len(x) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(x))
	return sorted[int(math.Ceil(q*float64(len(x))))-1]
}

func median(x []float64) float64 { return quantile(x, 0.5) }

// rankSum says by how many standard deviations the first sample's ranks among
// all values are above (below: negative) those of two samples of one
// distribution (Mann and Whitney, 1947, with the correction for ties). It isn't
// impressed by outliers, however far out they are.
func rankSum(a, b []float64) float64 {
	n, m := float64(len(a)), float64(len(b))
	sum, ties := 0.0, 0.0
	rank := 0.0 // of the last value so far
	for _, s := range steps(a, b) {
		t := s.a + s.b
		sum += s.a * (rank + (t+1)/2)
		ties += t*t*t - t
		rank += t
	}
	variance := n * m / 12 * (n + m + 1 - ties/((n+m)*(n+m-1)))
	if variance <= 0 {
		return 0 // all values are the same
	}
	return (sum - n*(n+m+1)/2) / math.Sqrt(variance)
}

// kolmogorovSmirnov says how probable it is that the distribution functions of
// two samples of one distribution lie as far apart somewhere as these do. It
// sees any difference, also one that leaves means and ranks alike. The
// probability is the limit for large samples; for small ones it is too large.
func kolmogorovSmirnov(a, b []float64) (p float64) {
	n, m := float64(len(a)), float64(len(b))
	d, belowA, belowB := 0.0, 0.0, 0.0
	for _, s := range steps(a, b) {
		belowA, belowB = belowA+s.a/n, belowB+s.b/m
		d = max(d, math.Abs(belowA-belowB))
	}
	lambda := d * math.Sqrt(n*m/(n+m))
	if lambda < 0.2 {
		return 1 // to twelve places, and the series converges slowly
	}
	for k, sign := 1.0, 2.0; k <= 100; k, sign = k+1, -sign {
		p += sign * math.Exp(-2*k*k*lambda*lambda)
	}
	return min(max(p, 0), 1)
}

// step is a value that occurs so often in two samples.
type step struct{ value, a, b float64 }

// steps are the values of two samples in ascending order.
func steps(a, b []float64) (all []step) {
	for _, v := range a {
		all = append(all, step{v, 1, 0})
	}
	for _, v := range b {
		all = append(all, step{v, 0, 1})
	}
	slices.SortFunc(all, func(x, y step) int {
		switch {
		case x.value < y.value:
			return -1
		case x.value > y.value:
			return 1
		}
		return 0
	})
	merged := all[:0]
	for _, s := range all {
		if last := len(merged) - 1; last >= 0 && merged[last].value == s.value {
			merged[last].a += s.a
			merged[last].b += s.b
		} else {
			merged = append(merged, s)
		}
	}
	return merged
}

// counts is how many fell into each of three classes.
type counts [3]int

// homogeneity says how probable it is that counts of one multinomial
// distribution differ as much as these: Pearson's chi-square, which for three
// classes has two degrees of freedom and therefore the distribution 1-exp(-x/2).
func homogeneity(a, b counts) (p float64) {
	n, m := sum(a), sum(b)
	x := 0.0
	for i := range a {
		both := float64(a[i] + b[i])
		if both == 0 {
			continue // p is only the greater for it
		}
		wantA, wantB := both*n/(n+m), both*m/(n+m)
		x += math.Pow(float64(a[i])-wantA, 2)/wantA + math.Pow(float64(b[i])-wantB, 2)/wantB
	}
	return math.Exp(-x / 2)
}

func sum(c counts) (n float64) {
	for _, k := range c {
		n += float64(k)
	}
	return n
}

// mostDeviations stands for what is beyond doubt.
const mostDeviations = 37

// deviations is the number of standard deviations that a normal variable leaves
// on either side with probability p: so all tests have one scale and one bound.
func deviations(p float64) float64 {
	low, high := 0.0, float64(mostDeviations) // math.Erfcinv ends at 8
	for range 60 {
		if mid := (low + high) / 2; chance(mid) > p {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}

// chance is the inverse of deviations.
func chance(deviations float64) (p float64) { return math.Erfc(deviations / math.Sqrt2) }
