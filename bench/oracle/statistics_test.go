package main

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 5e-5*max(1, math.Abs(want)) {
		t.Errorf("%s = %.6g, want %.6g", what, got, want)
	}
}

func TestWelch(t *testing.T) {
	t.Parallel()
	// Means 3 and 5, variances 5/2 and 20/3.
	e := welch([]float64{1, 2, 3, 4, 5}, []float64{2, 4, 6, 8})
	near(t, "size", e.Size, -2)
	near(t, "error", e.Error, math.Sqrt(2.5/5+20.0/3/4))
	near(t, "t", e.T, -1.35873)
	near(t, "t without any noise", welch([]float64{1, 1}, []float64{2, 2}).T, -mostDeviations)
	near(t, "t of the same", welch([]float64{1, 1}, []float64{1, 1}).T, 0)
}

func TestWeighted(t *testing.T) {
	t.Parallel()
	e := weighted([]effect{{Size: 10, Error: 1}, {Size: 20, Error: 2}, {Size: 99}})
	near(t, "size", e.Size, 12)
	near(t, "error", e.Error, math.Sqrt(0.8))
	near(t, "t", e.T, 12/math.Sqrt(0.8))
	if none := weighted(nil); none != (effect{}) {
		t.Errorf("nothing has the effect %v", none)
	}
}

func TestBelowCutsBothAtOneValue(t *testing.T) {
	t.Parallel()
	a, b := below([]float64{1, 2, 3, 10, 11}, []float64{4, 5, 6, 7, 8}, 0.9)
	if !slices.Equal(a, []float64{1, 2, 3}) || !slices.Equal(b, []float64{4, 5, 6, 7, 8}) {
		t.Errorf("below the 90th percentile are %v and %v", a, b)
	}
}

func TestRankSum(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b []float64
		want float64
	}{
		{[]float64{1, 2, 3}, []float64{4, 5, 6}, -1.96396}, // ranks 6 instead of 10.5, variance 5.25
		{[]float64{4, 1e9, 6}, []float64{3, 2, 1}, 1.96396},
		{[]float64{2, 1, 1}, []float64{1, 3, 2}, -0.942809}, // ties: ranks 8.5, variance 4.5
		{[]float64{1, 4}, []float64{2, 3}, 0},
		{[]float64{7, 7}, []float64{7, 7}, 0},
	} {
		near(t, fmt.Sprint(test.a, test.b), rankSum(test.a, test.b), test.want)
	}
}

func TestKolmogorovSmirnov(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b []float64
		want float64
	}{
		{[]float64{1, 2}, []float64{3, 4}, 0.27000},                                               // lambda 1
		{[]float64{1, 2, 3, 4, 5, 6, 7, 8}, []float64{9, 10, 11, 12, 13, 14, 15, 16}, 0.00067093}, // lambda 2
		{[]float64{1, 4, 4, 4}, []float64{1, 1, 1, 4}, 0.69937},                                   // ties: half apart, lambda 1/√2
		{[]float64{3, 1, 2}, []float64{1, 2, 3}, 1},
	} {
		near(t, fmt.Sprint(test.a, test.b), kolmogorovSmirnov(test.a, test.b), test.want)
	}
}

func TestHomogeneity(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b counts
		want float64
	}{
		{counts{10, 20, 30}, counts{20, 20, 20}, 0.069483}, // chi-square 16/3
		{counts{1, 2, 3}, counts{100, 200, 300}, 1},
		{counts{0, 10, 10}, counts{0, 5, 15}, math.Exp(-4.0 / 3)},
	} {
		near(t, fmt.Sprint(test.a, test.b), homogeneity(test.a, test.b), test.want)
	}
}

func TestDeviations(t *testing.T) {
	t.Parallel()
	near(t, "deviations of 5 %", deviations(0.05), 1.959964)
	near(t, "deviations of certainty", deviations(1), 0)
	near(t, "deviations of the impossible", deviations(0), mostDeviations)
	near(t, "a millionth of the chance of 4.5", 1e6*chance(4.5), 6.795346)
	near(t, "deviations of the chance of 20", deviations(chance(20)), 20)
}
