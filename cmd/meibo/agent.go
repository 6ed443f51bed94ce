package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"meibo/cmd/meibo/config"
	"meibo/cmd/meibo/logging"
	"meibo/resolver/filewatch"
)

func newAgentCommand() *cobra.Command {
	var flags *config.Flags
	cmd := &cobra.Command{
		Use: "agent", Short: "Run the daemon", GroupID: "daemon", Args: cobra.NoArgs,
		Long: `Runs the daemon in the foreground. Flags are those of Consul's agent and win over
files; files are HCL or JSON with Consul's keys and meibo's own (see the README).

SIGHUP reads the files again: a fault leaves everything as it was and is logged.
SIGTERM and SIGINT stop the daemon; a restart is not a leave, unless
leave_on_terminate or skip_leave_on_interrupt = false say so.`,
		Example: "  meibo agent -dev\n  meibo agent -config-dir /etc/meibo.d\n  meibo agent -config-dir /etc/consul.d -dns-port 53",
		RunE: func(cmd *cobra.Command, _ []string) error {
			// The daemon hears signals itself: it may have to leave its cluster first.
			return runAgent(context.WithoutCancel(cmd.Context()), flags.Sources(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags = config.RegisterFlags(cmd.Flags())
	return cmd
}

// runAgent is the daemon as a process: configuration, log, signals, pid file, and what systemd wants to hear.
func runAgent(ctx context.Context, sources config.Sources, stdout, stderr io.Writer) error {
	signals := make(chan os.Signal, 2) // the second one is heard too
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	files := newWatched(sources)
	cfg, warnings, err := config.Load(sources)
	if err != nil {
		return fmt.Errorf("the configuration is not valid, nothing was started:\n%w", err)
	}
	// Who read our output is gone: that ends no daemon. Caught, not ignored, as the programs that checks run would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGPIPE)
	lines := cfg.LogConfig()
	lines.Stderr, lines.Stdout = stderr, stdout
	out := logging.New(lines)
	defer out.Close()
	log := out.Logger()
	logWarnings(log, warnings)
	d, err := newDaemon(daemonConfig{
		Config: cfg, Logger: log, Log: out, Files: activation.Files(true),
		Load: func() (*config.Config, []config.Warning, error) { return config.Load(sources) },
	})
	if err != nil {
		return err
	}
	if cfg.PidFile != "" {
		if err := os.WriteFile(cfg.PidFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
			log.Error("pid_file is not written", "err", err)
		} else {
			defer os.Remove(cfg.PidFile)
		}
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var listening sync.WaitGroup
	listening.Go(func() { reloadOn(ctx, hangup, files, d, log) })
	if cfg.AutoReload {
		listening.Go(func() { files.watch(ctx, log) })
	}
	listening.Go(func() {
		leaves := func(sig os.Signal) bool { return leavesOn(sig, d.config().Cluster) }
		stopOn(ctx, signals, leaves, hostAgent{d}.Leave, stop, log)
	})
	out.Print(d.banner())
	notify(log, systemd.SdNotifyReady)
	err = d.Run(ctx)
	notify(log, systemd.SdNotifyStopping)
	stop()
	listening.Wait()
	return err
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
		if err := d.Reload(ctx); err != nil {
			log.Error("configuration not taken, everything stays as it was", "err", oneLine(err))
		}
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
	return &watched{sources: sources, changes: make(chan struct{}, 1), known: sources.Digest()}
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
