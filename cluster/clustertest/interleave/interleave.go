// Package interleave goes through every order in which steps can come.
package interleave

// Explore calls run again and again, until it has made every sequence of the choices
// that it asks for: choose returns one of 0 to n-1. What is asked for may hang on what
// was chosen before, and on nothing else. It returns how often run was called.
func Explore(run func(choose func(n int) int)) (runs int) {
	var path, widths []int
	for {
		depth := 0
		run(func(n int) int {
			if depth == len(path) {
				path, widths = append(path, 0), append(widths, n)
			}
			depth++
			return path[depth-1]
		})
		runs++
		path, widths = path[:depth], widths[:depth]
		for len(path) > 0 && path[len(path)-1] == widths[len(path)-1]-1 {
			path, widths = path[:len(path)-1], widths[:len(widths)-1]
		}
		if len(path) == 0 {
			return runs
		}
		path[len(path)-1]++
	}
}
