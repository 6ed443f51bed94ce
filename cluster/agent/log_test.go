package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/check"
	"meibo/cluster/clustertest/logtest"
	"meibo/cluster/definition"
)

func TestLog_ChecksWithTheFirstLineOfTheirOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logtest.Text
		began := time.Now()
		a := mustNew(t, Config{Now: func() time.Duration { return time.Since(began) }, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, attr slog.Attr) slog.Attr {
			if attr.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return attr
		}}))})
		said := func(want ...string) {
			t.Helper()
			synctest.Wait()
			if got := log.Take(); got != strings.Join(append(want, ""), "\n") {
				t.Errorf("the log has\n%swant\n%s", got, strings.Join(want, "\n"))
			}
		}
		must(t, a.AddService(definition.Service{Name: "web", Checks: []definition.Check{ttl(time.Hour)}}, SourceFile, false))
		must(t, a.AddCheck(definition.Check{ID: "late", Name: "late", Definition: check.Definition{TTL: 10 * time.Second}}, SourceFile))
		running(t, a)
		said()
		must(t, a.UpdateTTL("service:web", catalog.Critical, "\n no disk \nand more\n"))
		said(`level=WARN msg="check does not pass from the start" check=service:web service=web status=critical output="no disk"`)
		must(t, a.UpdateTTL("service:web", catalog.Critical, "still none"))
		said()
		must(t, a.UpdateTTL("service:web", catalog.Passing, ""))
		said(`level=INFO msg="check changed" check=service:web before=critical service=web status=passing`)
		must(t, a.UpdateTTL("service:web", catalog.Critical, strings.Repeat("é", 150)))
		said(`level=WARN msg="check changed" check=service:web before=passing service=web status=critical output=` + strings.Repeat("é", 100))

		time.Sleep(11 * time.Second) // nobody reports
		said(`level=WARN msg="check does not pass from the start" check=late status=critical output="TTL expired"`)

		// Defined anew it does not begin again.
		must(t, a.AddCheck(definition.Check{ID: "late", Name: "later", Definition: check.Definition{TTL: 20 * time.Second}}, SourceFile))
		time.Sleep(21 * time.Second)
		said()
	})
}

// That the catalog can't be reached is worth a warning; that this host has left it isn't.
func TestLog_ThatThisHostLeftIsNoWarning(t *testing.T) {
	for err, want := range map[error]bool{errors.New("no leader"): true, fmt.Errorf("node: %w", ErrLeft): false} {
		synctest.Test(t, func(t *testing.T) {
			var log logtest.Text
			f := newFakeCatalog()
			f.fail = err
			began := time.Now()
			a := mustNew(t, Config{Catalog: f, Now: func() time.Duration { return time.Since(began) }, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			defer running(t, a)()
			time.Sleep(5 * time.Minute) // synctest's
			if got := strings.Contains(log.Take(), "cannot sync"); got != want {
				t.Errorf("%v: warned: %t", err, got)
			}
		})
	}
}
