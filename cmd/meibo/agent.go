package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"meibo/cmd/meibo/config"
	"meibo/cmd/meibo/logging"
	"meibo/cmd/meibo/signals"
	"meibo/resolver/filewatch"
)

func newAgentCommand() *cobra.Command {
	var flags *config.Flags
	cmd := &cobra.Command{
		Use: "agent", Short: "Run the daemon", GroupID: "daemon", Args: noArgs,
		Long: `Runs the daemon in the foreground. Flags are those of Consul's agent and win over
files; files are HCL or JSON with Consul's keys and meibo's own (see the README).

A service or check with a fault in it is left out, and said in the log; any other
fault in the files keeps the daemon from starting.

SIGHUP reads the files again: a fault leaves everything as it was and is logged.
One that comes while the daemon starts is carried out once it has started.
SIGTERM and SIGINT stop the daemon; a restart is not a leave, unless
leave_on_terminate or skip_leave_on_interrupt = false say so.`,
		Example: "  meibo agent -dev\n  meibo agent -config-dir /etc/meibo.d\n  meibo agent -config-dir /etc/consul.d -dns-port 53",
		RunE: func(cmd *cobra.Command, _ []string) error {
			// The daemon hears signals itself: it may have to leave its cluster first.
			err := runAgent(context.WithoutCancel(cmd.Context()), flags.Sources(), cmd.OutOrStdout(), cmd.ErrOrStderr())
			if anew := (errAnew{}); errors.As(err, &anew) {
				return execAnew(anew.sockets)
			}
			return err
		},
	}
	flags = config.RegisterFlags(cmd.Flags())
	completeAgent(cmd)
	return cmd
}

// serverGC is a server's GOGC, unless that is set: it holds the whole catalog and makes little beside it, so that half as
// much room for garbage costs no processor time that can be seen.
const serverGC = 50

// runAgent is the daemon as a process: configuration, log, signals, pid file, and what systemd wants to hear.
func runAgent(ctx context.Context, sources config.Sources, stdout, stderr io.Writer) error {
	heard := signals.Hear()
	defer heard.Release()
	files := newWatched(sources)
	cfg, warnings, err := loadUnless(heard.Stop, func() (*config.Config, []config.Warning, error) {
		files.differ() // what is read now is known
		return config.Load(sources)
	})
	if errors.Is(err, errStopped) {
		return nil // nothing has been started yet
	}
	if err != nil {
		for _, w := range warnings {
			fmt.Fprintln(stderr, "warning:", w)
		}
		return fmt.Errorf("the configuration is not valid, nothing was started:\n%w", err)
	}
	if cfg.Cluster.Server && os.Getenv("GOGC") == "" {
		debug.SetGCPercent(serverGC)
	}
	lines := cfg.LogConfig()
	lines.Stderr, lines.Stdout = stderr, stdout
	out := logging.New(lines)
	defer out.Close()
	log := out.Logger()
	lock, err := lockDataDir(cfg, log)
	if err != nil {
		return err
	}
	defer lock.Close()
	d, err := newDaemon(daemonConfig{
		Config: cfg, Logger: log, Log: out, Files: activation.Files(true), Warnings: warnings,
		Load: func(registered func(id string) bool) (*config.Config, []config.Warning, error) {
			again := sources
			again.Registered = registered
			return config.Load(again)
		},
	})
	if err != nil {
		return err
	}
	defer writePID(cfg.PidFile, log)()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if isTerminal(stdout) {
		out.Print(d.banner())
	}
	d.sayStart()
	notify(log, systemd.SdNotifyReady) // before a reload that waited says that it begins
	var listening sync.WaitGroup
	listening.Go(func() { reloadOn(ctx, heard.Hangup, files, d, log) })
	listening.Go(func() { feedWatchdog(ctx, log, d.dns.works) })
	var anew *errAnew
	if cfg.Node.Awaited {
		listening.Go(func() {
			if sockets, ok := d.startAnewWithAddress(ctx, func() (*config.Config, []config.Warning, error) { return config.Load(sources) }, stop, log); ok {
				anew = &errAnew{sockets}
			}
		})
	}
	if cfg.AutoReload {
		listening.Go(func() { files.watch(ctx, log) })
	}
	listening.Go(func() {
		leaves := func(sig os.Signal) bool { return leavesOn(sig, d.config().Cluster) }
		stopOn(ctx, heard.Stop, leaves, hostAgent{d}.Leave, stop, log)
	})
	err = d.Run(ctx)
	stop()
	listening.Wait()
	if anew != nil && err == nil {
		return *anew
	}
	notify(log, systemd.SdNotifyStopping)
	return err
}

// isTerminal reports whether a person reads what is written there; all others have the log.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

var errStopped = errors.New("stopped while the configuration was read")

// loadUnless reads the configuration, or returns errStopped once stop says something. A read may hang (a pipe that nobody
// writes to, a dead file server) and can't be cut short: it is left to itself, and nothing comes of it.
func loadUnless[S any](stop <-chan S, load func() (*config.Config, []config.Warning, error)) (*config.Config, []config.Warning, error) {
	type loaded struct {
		cfg      *config.Config
		warnings []config.Warning
		err      error
	}
	done := make(chan loaded, 1)
	go func() {
		cfg, warnings, err := load()
		done <- loaded{cfg, warnings, err}
	}()
	select {
	case l := <-done:
		return l.cfg, l.warnings, l.err
	case <-stop:
		return nil, nil, errStopped
	}
}

// writePID writes pid_file and returns what removes it. That it can't be written is
// nobody's reason to do without DNS.
func writePID(path string, log *slog.Logger) (remove func()) {
	if path == "" {
		return func() {}
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		log.Error("pid_file cannot be written, the daemon goes on without", "err", err)
		return func() {}
	}
	return func() { _ = os.Remove(path) }
}

// reloadOn reads the configuration again at each SIGHUP, and when its files are not what they were, until ctx ends.
func reloadOn(ctx context.Context, hangup <-chan os.Signal, files *watched, d *daemon, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			files.differ() // what is read now is known
		case <-files.changes:
			if !files.differ() {
				continue
			}
			log.Info("the configuration's files have changed: reading them again")
		}
		notify(log, systemd.SdNotifyReloading)
		_, _ = d.Reload(ctx) // the log has it
		notify(log, systemd.SdNotifyReady)
	}
}

// watched are the configuration's files, for auto_reload_config.
type watched struct {
	sources config.Sources
	changes chan struct{} // holds one: they may have changed
	known   [sha256.Size]byte
}

func newWatched(sources config.Sources) *watched {
	return &watched{sources: sources, changes: make(chan struct{}, 1)}
}

// differ reports whether the files are not what they were when it was last called.
func (w *watched) differ() bool {
	before := w.known
	w.known = w.sources.Digest()
	return w.known != before
}

// reloadSettle is how long the configuration's files are left alone: tools that manage them write several, one after another.
const reloadSettle = 300 * time.Millisecond

// watch fills changes until ctx ends.
func (w *watched) watch(ctx context.Context, log *slog.Logger) {
	filewatch.Run(ctx, filewatch.Config{What: "the configuration's files", Files: w.sources.Paths, Settle: reloadSettle, Logger: log, Changed: func() {
		select {
		case w.changes <- struct{}{}:
		default:
		}
	}})
}

func notify(log *slog.Logger, state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		log.Warn("tell systemd", "err", err)
	}
}

func logWarnings(log *slog.Logger, warnings []config.Warning) {
	for _, w := range warnings {
		level := slog.LevelWarn
		if w.Serious {
			level = slog.LevelError
		}
		log.Log(context.Background(), level, "configuration", "warning", w.String())
	}
}

// oneLine keeps an error of many faults on the one line that a log entry is.
func oneLine(err error) string {
	var faults config.Faults
	if !errors.As(err, &faults) {
		return err.Error()
	}
	text := ""
	for i, f := range faults {
		if i > 0 {
			text += "; "
		}
		text += f.Error()
	}
	return text
}
