package store_test

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kwai/internal/store"
	"kwai/internal/testing/storetest"
)

const window = time.Minute

// errUndo undoes a transaction that a test has learned enough from.
var errUndo = errors.New("undo")

// addUser adds a user with the password hash "hash".
func addUser(tx *store.Tx, id string) error {
	u := store.User{Profile: store.Profile{ID: id, Email: id}, EmailKey: id}
	return discard(tx.InsertUser(u, store.Password{Hash: "hash", Cost: "cost"}))
}

func TestRenew(t *testing.T) {
	day := 24 * time.Hour
	tests := []struct {
		name    string
		before  func(tx *store.Tx) error // at epoch, behind the session's opening
		counter int64
		after   time.Duration // since epoch
		want    int64         // the counter then; 0 if it is refused
	}{
		{name: "current", counter: 0, after: time.Hour, want: 1},
		{name: "at once", counter: 0, after: 0, want: 1},
		{name: "replaced", before: renewing(0), counter: 0, after: time.Hour},
		{name: "current of several", before: renewing(0, 1, 2), counter: 3, after: time.Hour, want: 4},
		{name: "above the row's: the database has lost history", before: renewing(0), counter: 41, after: time.Hour, want: 42},
		{name: "one below that", before: renewing(0, 41), counter: 41, after: time.Hour},
		{name: "time went back", before: renewing(0), counter: 1, after: -time.Hour, want: 2},
		{name: "just not idle", counter: 0, after: 30*day - time.Microsecond, want: 1},
		{name: "idle", counter: 0, after: 30 * day},
		{name: "kept alive, not too old", before: renewingAt(29*day, 58*day, 87*day), counter: 3, after: 90*day - time.Microsecond, want: 4},
		{name: "kept alive, too old", before: renewingAt(29*day, 58*day, 87*day), counter: 3, after: 90 * day},
		{name: "ended", before: func(tx *store.Tx) error {
			return discard(tx.EndSession("s", "u", store.EndLogout, lifetimes))
		}, counter: 0, after: time.Hour},
	}
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				undo(t, s, func(tx *store.Tx) error {
					if tt.before != nil {
						if err := tt.before(tx); err != nil {
							return err
						}
					}
					tx.Now = epoch.Add(tt.after)
					got, err := tx.Renew("s", tt.counter, lifetimes, window)
					if tt.want == 0 {
						if !errors.Is(err, store.ErrNotFound) {
							t.Errorf("renewed to %d (%v)", got.Counter, err)
						}
						return discard(tx.SessionByID("s")) // it is still there
					}
					if err != nil {
						return err
					}
					if got.Counter != tt.want {
						t.Errorf("renewed to %d, want %d", got.Counter, tt.want)
					}
					if got.UserID != "u" {
						t.Errorf("renewed for %q", got.UserID)
					}
					if !got.Live(tx.Now, lifetimes) {
						t.Errorf("what was renewed isn't live: %+v", got)
					}
					stored, err := tx.SessionByID("s")
					if stored != got {
						t.Errorf("stored is %+v, answered %+v", stored, got)
					}
					if latest := epoch.Add(max(tt.after, 0)); !stored.RenewedAt.Equal(latest) {
						t.Errorf("renewed at %v, want %v", stored.RenewedAt, latest)
					}
					return err
				})
			})
		}
		t.Run("nobody's", func(t *testing.T) {
			err := s.Statement(t.Context(), func(tx *store.Tx) error { return discard(tx.Renew("nobody", 0, lifetimes, window)) })
			if !errors.Is(err, store.ErrNotFound) {
				t.Error(err)
			}
		})
	})
}

// undo runs fn in a transaction in which a session "s" of the user "u" was
// opened at epoch, and undoes it.
func undo(t *testing.T, s *store.Store, fn func(tx *store.Tx) error) {
	t.Helper()
	err := s.InTx(t.Context(), func(tx *store.Tx) error {
		tx.Now = epoch
		return errors.Join(addUser(tx, "u"), discard(tx.OpenSession("s", "u", many)), fn(tx), errUndo)
	})
	if !errors.Is(err, errUndo) || err.Error() != errUndo.Error() {
		t.Fatal(err)
	}
}

// renewing renews the session with these tokens.
func renewing(counters ...int64) func(*store.Tx) error {
	return func(tx *store.Tx) error {
		for _, c := range counters {
			if _, err := tx.Renew("s", c, lifetimes, window); err != nil {
				return err
			}
		}
		return nil
	}
}

// renewingAt renews the session at these times after epoch.
func renewingAt(times ...time.Duration) func(*store.Tx) error {
	return func(tx *store.Tx) error {
		for i, d := range times {
			tx.Now = epoch.Add(d)
			if _, err := tx.Renew("s", int64(i), lifetimes, window); err != nil {
				return err
			}
		}
		return nil
	}
}

// The reuse window, as a table of what happened when (epoch is the beginning of
// a window) and which of the tokens may be used then.
func TestReusable(t *testing.T) {
	sec := func(n ...float64) (all []time.Duration) {
		for _, n := range n {
			all = append(all, time.Duration(n*float64(time.Second)))
		}
		return all
	}
	tests := []struct {
		name     string
		renewed  []time.Duration // token i was replaced then
		arrived  []time.Duration // or earlier than that by nothing
		reusable []bool          // token i
	}{
		{"at once", sec(10), sec(10), []bool{true}},
		{"just in time", sec(10), sec(69.999999), []bool{true}},
		{"one that is two behind", sec(10, 20, 30), sec(40), []bool{true, true, true}},
		{"over the edge of a window", sec(59, 61), sec(118), []bool{true, true}},
		{"the older one is past", sec(10, 70), sec(130), []bool{false, true}},
		{"both are past", sec(10, 70), sec(190), []bool{false, false}},
		{"past twice the window", sec(10), sec(130), []bool{false}},
		{"one for each window", sec(10, 70, 130), sec(130), []bool{false, true, true}},
		{"long silence between", sec(10, 1000), sec(1001), []bool{false, true}},
		{"arrived before the renewal that overtook it", sec(10, 20), sec(19), []bool{true, true}},
		{"overtaken at the edge of a window", sec(59.99, 120.01), sec(119.95), []bool{true, true}},
		{"overtaken, but too old before", sec(50, 119, 180.01), sec(179.99), []bool{false, true, true}},
		{"clock behind by more than a window", sec(100, 110), sec(30), []bool{true, true}},
		{"time went back between", sec(70, 10, 20), sec(71), []bool{true, true, true}},
	}
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				undo(t, s, func(tx *store.Tx) error {
					if err := renewingAt(tt.renewed...)(tx); err != nil {
						return err
					}
					session, err := tx.SessionByID("s")
					for i, want := range tt.reusable {
						if got := session.Reusable(int64(i), epoch.Add(tt.arrived[0]), window); got != want {
							t.Errorf("token %d: %t", i, got)
						}
					}
					return err
				})
			})
		}
	})
}

// Whatever happens when, a token replaced less than a window before a request
// arrived is reusable, and one replaced two windows before isn't.
func TestReusableForOneWindowAtLeastAndTwoAtMost(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		rapid.Check(t, func(rt *rapid.T) {
			window := time.Duration(rapid.Int64Range(1, int64(2*time.Minute/time.Microsecond)).Draw(rt, "window, µs")) * time.Microsecond
			// Steps of all sizes around a window's; some go back.
			step := rapid.Custom(func(rt *rapid.T) time.Duration {
				of := rapid.SampledFrom([]time.Duration{window / 10, window, 3 * window, -window / 3}).Draw(rt, "of")
				return time.Duration(rapid.Float64Range(0, 1).Draw(rt, "part") * float64(of)).Truncate(time.Microsecond)
			})
			times := rapid.SliceOfN(step, 1, 12).Draw(rt, "steps")
			for i := 1; i < len(times); i++ {
				times[i] += times[i-1]
			}
			var sessions []store.Session // behind each renewal
			undo(t, s, func(tx *store.Tx) error {
				for i, d := range times {
					tx.Now = epoch.Add(d)
					session, err := tx.Renew("s", int64(i), lifetimes, window)
					if err != nil {
						return err
					}
					sessions = append(sessions, session)
				}
				return nil
			})
			last := sessions[len(sessions)-1]
			// The latest renewal may be newer than the arrival where time went
			// back; a request that another overtakes is TestReusable's.
			arrived := epoch.Add(times[len(times)-1] + step.Draw(rt, "arrival").Abs())
			for i := range sessions {
				// Until time is again where it was it stands still for a session.
				replaced, counted := epoch.Add(times[i]), sessions[i].RenewedAt
				got := last.Reusable(int64(i), arrived, window)
				if !got && arrived.Sub(replaced) < window {
					rt.Fatalf("token %d, replaced %v before, is not reusable", i, arrived.Sub(replaced))
				}
				if got && arrived.Sub(counted) >= 2*window {
					rt.Fatalf("token %d, replaced %v before, is reusable", i, arrived.Sub(counted))
				}
			}
		})
	})
}

func TestSessionTakesConstantRoom(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		undo(t, s, func(tx *store.Tx) error {
			var before string
			for i := range int64(100) {
				tx.Now = epoch.Add(time.Duration(i) * 20 * time.Second)
				if _, err := tx.Renew("s", i, lifetimes, window); err != nil {
					return err
				}
				if i%10 != 0 {
					continue
				}
				rows, err := storetest.Text(tx.Tx.Reader, `SELECT CAST((SELECT COUNT(*) FROM sessions) + (SELECT COUNT(*) FROM events) + (SELECT COUNT(*) FROM leases) AS TEXT)`)
				if err != nil {
					return err
				}
				if before == "" {
					before = rows
				}
				if rows != before {
					t.Errorf("renewal %d: %s rows", i, rows)
				}
			}
			return nil
		})
	})
}

func TestSessionsEnd(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url, nil)
		storetest.At(t, s, epoch, func(tx *store.Tx) error {
			err := errors.Join(addUser(tx, "u"), addUser(tx, "other"))
			for i := range 4 {
				err = errors.Join(err, discard(tx.OpenSession(strconv.Itoa(i), "u", many)))
			}
			return errors.Join(err, discard(tx.OpenSession("theirs", "other", many)))
		})
		now := epoch.Add(time.Hour)
		end := func(id, user string) (ended bool) {
			storetest.At(t, s, now, func(tx *store.Tx) (err error) {
				ended, err = tx.EndSession(id, user, store.EndLogout, lifetimes)
				return err
			})
			return ended
		}
		for _, tt := range []struct {
			id, user string
			want     bool
		}{{"0", "other", false}, {"0", "u", true}, {"0", "u", false}, {"nobody", "u", false}} {
			if got := end(tt.id, tt.user); got != tt.want {
				t.Errorf("ending %s for %s: %t", tt.id, tt.user, got)
			}
		}
		live := func() (ids string) {
			for _, id := range []string{"0", "1", "2", "3", "theirs"} {
				session, err := s.Read(t.Context()).SessionByID(id)
				check(t, err)
				user, err := s.Read(t.Context()).UserOfSession(id, now, lifetimes)
				if live := err == nil; live != session.Live(now, lifetimes) || live && user.ID != session.UserID {
					t.Errorf("%s is %+v, of %q (%v)", id, session, user.ID, err)
				}
				if err == nil {
					ids += id + " "
				}
			}
			return ids
		}
		if got := live(); got != "1 2 3 theirs " {
			t.Errorf("live: %s", got)
		}
		storetest.At(t, s, now, func(tx *store.Tx) error { return tx.EndSessions("u", store.EndPassword) })
		if got := live(); got != "theirs " {
			t.Errorf("live: %s", got)
		}
		now = epoch.Add(lifetimes.Idle) // a session that is past is none to be ended
		if end("theirs", "other") {
			t.Error("a session that was past could be ended")
		}
	})
}
