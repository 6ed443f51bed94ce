// Package bench measures meibo as a whole: the built binary over real sockets, beside its peers where there are any. It is
// imported by nobody. Figures are printed; a bar fails a run only when MEIBO_VERIFY is set (`make verify`), because a
// time says something about the machine too.
package bench
