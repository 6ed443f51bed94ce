package agent

// Source says who brought a definition. What a file defines only a file takes
// away again; what the API registered is kept under DataDir.
type Source uint8

// The sources.
const (
	SourceAPI Source = iota
	SourceFile
)

// String returns the name that persisted files use, which is Consul's.
func (s Source) String() string {
	if s == SourceFile {
		return "local"
	}
	return "remote"
}
