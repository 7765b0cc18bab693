package bus_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"kwai/internal/bus"
	"kwai/internal/store"
	"kwai/internal/testing/need"
	"kwai/internal/testing/pgtest"
	"kwai/internal/testing/storetest"
)

func TestMain(m *testing.M) {
	need.ShareCores()
	code := storetest.Main(m)
	// Every bus and store ends, and so does the cluster: soon, not at once.
	for err := goleak.Find(); err != nil; err = goleak.Find() {
		fmt.Fprintln(os.Stderr, "waiting for goroutines to end: ", err)
	}
	os.Exit(code)
}

// eachDatabase is storetest.Each with few databases on PostgreSQL, where to make
// one takes longer than most tests here: a test gets one that others are done
// with, without what the bus wrote.
func eachDatabase(t *testing.T, f func(t *testing.T, url string)) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(t, storetest.SQLite(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		pgtest.Require(t)
		url := <-databases
		if url == "" {
			url = storetest.Postgres(lasting{t})
		} else {
			exec(t, url, `DELETE FROM deliveries`, `DELETE FROM events`, `DELETE FROM leases`, `DELETE FROM subscribers`)
		}
		t.Cleanup(func() { databases <- url })
		f(t, url)
	})
}

// databases are those that no test uses; "" is one to be made.
var databases = func() chan string {
	all := make(chan string, 4)
	for range cap(all) {
		all <- ""
	}
	return all
}()

// lasting is a test at whose end nothing is undone: the cluster's end does it.
type lasting struct{ testing.TB }

func (lasting) Cleanup(func()) {}

// bundle is a database in a bubble of synctest, whose clock the store follows:
// waits pass at once, and a delivery takes no time.
type bundle struct {
	t     *testing.T
	url   string
	store *store.Store
	start time.Time
}

func each(t *testing.T, f func(t *testing.T, b *bundle)) {
	eachDatabase(t, func(t *testing.T, url string) {
		synctest.Test(t, func(t *testing.T) {
			f(t, &bundle{t: t, url: url, store: storetest.Open(t, url, time.Now), start: time.Now()})
		})
	})
}

// publish writes events that expire after life.
func (b *bundle) publish(life time.Duration, ids ...string) {
	b.t.Helper()
	err := b.store.InTx(b.t.Context(), func(tx *store.Tx) error {
		for _, id := range ids {
			e := store.Event{ID: id, Type: "test", UserID: "u", CreatedAt: tx.Now, ExpiresAt: tx.Now.Add(life)}
			if err := tx.Publish(e, "subscriber"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bundle) bus(s *subscriber) *bus.Bus {
	return bus.New(b.store, s, slog.New(slog.DiscardHandler))
}

// run runs a bus until stop is called.
func (b *bundle) run(on *bus.Bus) (stop func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan struct{})
	go func() { on.Run(ctx); close(done) }()
	return func() { cancel(); <-done }
}

// exec runs statements past the store.
func (b *bundle) exec(statements ...string) {
	b.t.Helper()
	exec(b.t, b.url, statements...)
}

func exec(t *testing.T, url string, statements ...string) {
	t.Helper()
	past(t, url, func(db *sql.DB) (err error) {
		for _, s := range statements {
			if err == nil {
				_, err = db.ExecContext(t.Context(), s)
			}
		}
		return err
	})
}

// count is what a query counts, past the store.
func (b *bundle) count(query string) (n int) {
	b.t.Helper()
	past(b.t, b.url, func(db *sql.DB) error { return db.QueryRowContext(b.t.Context(), query).Scan(&n) })
	return n
}

// past gives a connection to the database past the store.
func past(t *testing.T, url string, do func(*sql.DB) error) {
	t.Helper()
	driver, dsn := "pgx", url
	if path, ok := strings.CutPrefix(url, "sqlite://"); ok {
		driver, dsn = "sqlite", "file:"+path+"?_pragma=foreign_keys(1)&_pragma=busy_timeout(3600000)"
	}
	db, err := sql.Open(driver, dsn)
	if err == nil {
		err = do(db)
	}
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// wantDelivery says how the delivery of an event stands.
func (b *bundle) wantDelivery(id string, attempts int, dead bool, reason string) {
	b.t.Helper()
	d, err := b.store.Read(b.t.Context()).DeliveryByID("subscriber", id)
	if err != nil {
		b.t.Errorf("the delivery of %s: %v", id, err)
		return
	}
	after := time.Since(b.start)
	if d.Attempts != attempts {
		b.t.Errorf("after %v %s was tried %d times, want %d", after, id, d.Attempts, attempts)
	}
	if got := !d.DeadAt.IsZero(); got != dead {
		b.t.Errorf("after %v %s is dead: %v, want %v", after, id, got, dead)
	}
	if !strings.Contains(d.LastError, reason) {
		b.t.Errorf("after %v the last error of %s is %q, want %q", after, id, d.LastError, reason)
	}
}

// wantGone says that nothing of an event is left.
func (b *bundle) wantGone(id string) {
	b.t.Helper()
	if d, err := b.store.Read(b.t.Context()).DeliveryByID("subscriber", id); !errors.Is(err, store.ErrNotFound) {
		b.t.Errorf("of %s there is still %+v (%v)", id, d, err)
	}
}

// subscriber records when it gets which event. The zero value accepts all.
type subscriber struct {
	deliver func(ctx context.Context, e store.Event) error

	mu    sync.Mutex
	times map[string][]time.Time
}

func (*subscriber) Name() string { return "subscriber" }

func (s *subscriber) Deliver(ctx context.Context, e store.Event) error {
	s.mu.Lock()
	if s.times == nil {
		s.times = make(map[string][]time.Time)
	}
	s.times[e.ID] = append(s.times[e.ID], time.Now())
	often := len(s.times[e.ID]) > 50
	s.mu.Unlock()
	if often { // a bus that goes round and round must not stop the bubble's time
		<-ctx.Done()
	}
	if s.deliver == nil {
		return nil
	}
	return s.deliver(ctx, e)
}

func (s *subscriber) count(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.times[id])
}

// failing is a subscriber that always fails with err.
func failing(err error) *subscriber {
	return &subscriber{deliver: func(context.Context, store.Event) error { return err }}
}

// deliverDue is one step of a bus, which must try n deliveries.
func deliverDue(t *testing.T, on *bus.Bus, n int) {
	t.Helper()
	if got, err := on.DeliverDue(t.Context()); err != nil || got != n {
		t.Errorf("tried %d (%v), want %d", got, err, n)
	}
}

func TestAcceptedEventIsGone(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		var s subscriber
		on := b.bus(&s)
		deliverDue(t, on, 0)
		b.publish(time.Hour, "1")
		deliverDue(t, on, 1)
		deliverDue(t, on, 0)
		b.wantGone("1")
		if n := s.count("1"); n != 1 {
			t.Errorf("delivered %d times", n)
		}
	})
}

func TestFailedDeliveryIsTriedAgain(t *testing.T) {
	down := errors.New("down")
	tests := []struct {
		name   string
		fail   func() error
		life   time.Duration
		want   []int // seconds since the event at which it is tried
		reason string
	}{
		{"error", func() error { return down }, 80 * time.Second, []int{0, 1, 3, 7, 15, 30, 45, 60, 75, 79}, "down"},
		{"refused", func() error { return fmt.Errorf("%w: %w", bus.ErrRefused, down) }, 2200 * time.Second,
			[]int{0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 1623, 2199}, "refused: down"},
		{"later", func() error { return fmt.Errorf("%w: %w", bus.ErrLater, down) }, 1500 * time.Second,
			[]int{0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 811, 1111, 1411, 1499}, "not now: down"},
		{"panic", func() error { panic(down) }, 30 * time.Second, []int{0, 1, 3, 7, 15, 29}, "panicked: down"},
		{"expired before it was tried", func() error { return nil }, 0, nil, "expired"},
	}
	each(t, func(t *testing.T, b *bundle) {
		for _, tt := range tests {
			b.start = time.Now()
			s := &subscriber{deliver: func(context.Context, store.Event) error { return tt.fail() }}
			b.publish(tt.life, tt.name)
			stop := b.run(b.bus(s))
			time.Sleep(tt.life + time.Minute) // dead, it is no longer tried
			stop()
			var got []int
			for _, at := range s.times[tt.name] {
				got = append(got, int(at.Sub(b.start).Round(time.Second)/time.Second))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s: tried after so many seconds (-want +got):\n%s", tt.name, diff)
			}
			b.wantDelivery(tt.name, max(len(tt.want), 1), true, tt.reason)
		}
	})
}

func TestDeliveryThatComesBackSucceeds(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		up := b.start.Add(20 * time.Second)
		s := &subscriber{deliver: func(context.Context, store.Event) error {
			if time.Now().Before(up) {
				return errors.New("down")
			}
			return nil
		}}
		b.publish(time.Hour, "1")
		stop := b.run(b.bus(s))
		time.Sleep(19 * time.Second)
		b.wantDelivery("1", 5, false, "down")
		time.Sleep(12 * time.Second)
		b.wantGone("1")
		stop()
	})
}

// A subscriber that hangs is given up after a while, and holds up no other
// event for longer.
func TestHangingDeliveryIsGivenUp(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		s := &subscriber{deliver: func(ctx context.Context, e store.Event) error {
			if e.ID == "hangs" {
				<-ctx.Done()
			}
			return ctx.Err()
		}}
		b.publish(time.Hour, "hangs", "other")
		deliverDue(t, b.bus(s), 2)
		if d := time.Since(b.start); d != 30*time.Second {
			t.Errorf("it took %v", d)
		}
		b.wantDelivery("hangs", 1, false, "deadline")
		b.wantGone("other")
	})
}

func TestReasonIsBoundedText(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		b.publish(time.Hour, "1")
		deliverDue(t, b.bus(failing(errors.New("\x00\xff"+strings.Repeat("é", 1000)))), 1)
		d, err := b.store.Read(t.Context()).DeliveryByID("subscriber", "1")
		if err != nil {
			t.Fatal(err)
		}
		if !utf8.ValidString(d.LastError) || len(d.LastError) > 310 || !strings.HasSuffix(d.LastError, "é…") {
			t.Errorf("the reason has %d bytes: %q", len(d.LastError), d.LastError)
		}
	})
}

func TestWakeDeliversAtOnce(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		var s subscriber
		on := b.bus(&s)
		stop := b.run(on)
		synctest.Wait()
		time.Sleep(100 * time.Millisecond)
		b.publish(time.Hour, "1")
		on.Wake()
		on.Wake()         // never blocks
		time.Sleep(99999) // less than a look at the outbox by itself
		b.wantGone("1")
		stop()
	})
}

func TestFlushDeliversAllThatIsDue(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		var ids []string
		for i := range 20 {
			ids = append(ids, fmt.Sprint(i))
		}
		b.publish(time.Hour, ids...)
		s := &subscriber{deliver: func(_ context.Context, e store.Event) error {
			if e.ID == "7" {
				return errors.New("down")
			}
			return nil
		}}
		on := b.bus(s)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		on.Flush(gone)
		if n := s.count("0"); n != 0 {
			t.Error("it delivered under a context that had ended")
		}
		on.Flush(t.Context())
		for _, id := range ids {
			if id == "7" {
				b.wantDelivery(id, 1, false, "down")
			} else {
				b.wantGone(id)
			}
			if n := s.count(id); n != 1 {
				t.Errorf("%s was delivered %d times", id, n)
			}
		}
	})
}

// The waits after an ErrLater grow from the first one on, however long the other
// side was away before; and where it can't be reached again they don't.
func TestWaitsGrowWithTheAnswersAlone(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		var tried []int
		s := &subscriber{deliver: func(context.Context, store.Event) error {
			at := int(time.Since(b.start).Round(time.Second) / time.Second)
			tried = append(tried, at)
			if at < 100 || at > 110 {
				return errors.New("down")
			}
			return bus.ErrLater
		}}
		b.publish(time.Hour, "1")
		stop := b.run(b.bus(s))
		time.Sleep(160 * time.Second)
		stop()
		if diff := cmp.Diff([]int{0, 1, 3, 7, 15, 30, 45, 60, 75, 90, 105, 106, 108, 112, 127, 142, 157}, tried); diff != "" {
			t.Errorf("tried after so many seconds (-want +got):\n%s", diff)
		}
	})
}

// What is refused for all holds up all, longer each time, until one is accepted.
func TestAllLaterHoldsUpAll(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		var ids []string
		for i := range 40 {
			ids = append(ids, fmt.Sprintf("%02d", i))
		}
		up := b.start.Add(200 * time.Second)
		var mu sync.Mutex
		tries := make(map[int]int) // by the second
		s := &subscriber{deliver: func(context.Context, store.Event) error {
			if !time.Now().Before(up) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			tries[int(time.Since(b.start).Round(time.Second)/time.Second)]++
			return bus.ErrAllLater
		}}
		b.publish(time.Hour, ids...)
		stop := b.run(b.bus(s))
		time.Sleep(time.Until(up))
		mu.Lock()
		got := maps.Clone(tries)
		mu.Unlock()
		if diff := cmp.Diff(map[int]int{0: 2, 15: 2, 45: 2, 105: 2}, got); diff != "" {
			t.Errorf("tries by the second (-want +got):\n%s", diff)
		}
		time.Sleep(3 * time.Minute)
		for _, id := range ids {
			b.wantGone(id)
		}
		stop()
	})
}

// No more deliveries are under way at once than the other side likes.
func TestDeliveriesAtOnceAreFew(t *testing.T) {
	each(t, func(t *testing.T, b *bundle) {
		for set, want := range map[int]int{0: 2, 1: 1, 5: 5} {
			var mu sync.Mutex
			now, most := 0, 0
			s := &subscriber{deliver: func(context.Context, store.Event) error {
				mu.Lock()
				now++
				most = max(most, now)
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				now--
				mu.Unlock()
				return nil
			}}
			for i := range 12 {
				b.publish(time.Hour, fmt.Sprint(set, "-", i))
			}
			on := b.bus(s)
			on.AtOnce = set
			on.Flush(t.Context())
			on.Release(t.Context())
			if most != want {
				t.Errorf("AtOnce %d: %d at once, want %d", set, most, want)
			}
		}
	})
}
