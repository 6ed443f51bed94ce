package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"reflect"
	"strings"
	"time"
)

// ignored takes any value: fields of Consul's that nothing here reads.
type ignored struct{}

// lenient is a body in which unknown names are passed over.
type lenient interface{ passesOver() }

// decodeBody reads a request's JSON object into dst, a pointer to a struct. Names match
// without letter case and underscores (so snake_case is understood); a field may have
// further names in the tag "also". A name that no field has is an error that says the
// nearest one: a misspelt "Intervall" must not become a check that never runs.
func decodeBody(r *request, dst any) error {
	data, err := readBody(r)
	if err != nil {
		return err
	}
	if err := decodeJSON(data, dst); err != nil {
		return badRequest("Request decode failed: %v", err)
	}
	return nil
}

// readBody reads all of a request's body.
func readBody(r *request) ([]byte, error) {
	// A body that trickles in must not hold a connection for ever. Writers without
	// deadlines (those of tests) have none.
	rc := http.NewResponseController(r.w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout))
	data, err := io.ReadAll(r.Body)
	_ = rc.SetReadDeadline(time.Time{})
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, errorf(http.StatusRequestEntityTooLarge, "Request body too large, max size: %d bytes", tooLarge.Limit)
		}
		return nil, badRequest("Request decode failed: %v", err)
	}
	return data, nil
}

func decodeJSON(data []byte, dst any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return err
	}
	if dec.More() {
		return errors.New("more than one JSON value in the body")
	}
	return assign("", v, reflect.ValueOf(dst).Elem())
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	ignoredType  = reflect.TypeFor[ignored]()
)

// assign puts the decoded JSON value v into rv; path names the place for errors.
func assign(path string, v any, rv reflect.Value) error {
	switch rv.Type() {
	case ignoredType:
		return nil
	case durationType:
		return assignDuration(path, v, rv)
	}
	if v == nil {
		return nil // null leaves the zero value, as encoding/json does
	}
	switch rv.Kind() {
	case reflect.Pointer:
		rv.Set(reflect.New(rv.Type().Elem()))
		return assign(path, v, rv.Elem())
	case reflect.Struct:
		return assignStruct(path, v, rv)
	case reflect.Slice:
		return assignSlice(path, v, rv)
	case reflect.Map:
		return assignMap(path, v, rv)
	case reflect.Interface:
		rv.Set(reflect.ValueOf(v))
		return nil
	}
	return assignScalar(path, v, rv)
}

func assignStruct(path string, v any, rv reflect.Value) error {
	obj, ok := v.(map[string]any)
	if !ok {
		return wrongType(path, "an object", v)
	}
	used := make(map[int]string)
	for name, value := range obj {
		i, ok := fieldNamed(rv.Type(), name)
		if _, passed := rv.Addr().Interface().(lenient); !ok && passed {
			continue
		}
		if !ok {
			return unknownField(path, name, rv.Type())
		}
		if other, twice := used[i]; twice {
			return fmt.Errorf("%sfields %q and %q are the same", where(path), min(name, other), max(name, other))
		}
		used[i] = name
		if err := assign(join(path, rv.Type().Field(i).Name), value, rv.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

func assignSlice(path string, v any, rv reflect.Value) error {
	list, ok := v.([]any)
	if !ok {
		return wrongType(path, "a list", v)
	}
	rv.Set(reflect.MakeSlice(rv.Type(), len(list), len(list)))
	for i, item := range list {
		if err := assign(fmt.Sprintf("%s[%d]", path, i), item, rv.Index(i)); err != nil {
			return err
		}
	}
	return nil
}

func assignMap(path string, v any, rv reflect.Value) error {
	obj, ok := v.(map[string]any)
	if !ok {
		return wrongType(path, "an object", v)
	}
	rv.Set(reflect.MakeMapWithSize(rv.Type(), len(obj)))
	for key, item := range obj {
		elem := reflect.New(rv.Type().Elem()).Elem()
		if err := assign(join(path, key), item, elem); err != nil {
			return err
		}
		rv.SetMapIndex(reflect.ValueOf(key), elem)
	}
	return nil
}

func assignScalar(path string, v any, rv reflect.Value) error {
	switch rv.Kind() {
	case reflect.String:
		s, ok := v.(string)
		if !ok {
			return wrongType(path, "a string", v)
		}
		rv.SetString(s)
	case reflect.Bool:
		b, ok := v.(bool)
		if !ok {
			return wrongType(path, "true or false", v)
		}
		rv.SetBool(b)
	case reflect.Int:
		n, ok := v.(json.Number)
		i, err := n.Int64()
		if !ok || err != nil || i > math.MaxInt32 || i < math.MinInt32 {
			return wrongType(path, "a whole number", v)
		}
		rv.SetInt(i)
	default:
		panic("httpapi: a body cannot hold " + rv.Type().String())
	}
	return nil
}

// assignDuration takes Go's notation, or a number of nanoseconds, as Consul does.
func assignDuration(path string, v any, rv reflect.Value) error {
	switch v := v.(type) {
	case nil:
		return nil
	case string:
		if v == "" {
			return nil
		}
		d, err := time.ParseDuration(v)
		if err != nil {
			// "invalid duration" is what clients look for.
			return fmt.Errorf("%s: invalid duration %q: write it like \"10s\"", path, clip(v))
		}
		rv.SetInt(int64(d))
		return nil
	case json.Number:
		f, err := v.Float64()
		if err == nil && math.Abs(f) < math.MaxInt64 {
			rv.SetInt(int64(f))
			return nil
		}
	}
	return wrongType(path, "a duration like \"10s\"", v)
}

func fieldNamed(t reflect.Type, name string) (int, bool) {
	plain := plainName(name)
	for i := range t.NumField() {
		f := t.Field(i)
		if plainName(f.Name) == plain {
			return i, true
		}
		for also := range strings.SplitSeq(f.Tag.Get("also"), ",") {
			if also != "" && plainName(also) == plain {
				return i, true
			}
		}
	}
	return 0, false
}

func plainName(s string) string { return strings.ReplaceAll(strings.ToLower(s), "_", "") }

// unknownField begins as encoding/json's error does, which is what Consul shows.
func unknownField(path, name string, t reflect.Type) error {
	msg := fmt.Sprintf("json: unknown field %q", clip(name))
	if path != "" {
		msg += " in " + path
	}
	best, distance := "", 2*(1+max(1, len(name)/3))
	for i := range t.NumField() {
		known := t.Field(i).Name
		if kind := t.Field(i).Type; kind == ignoredType || kind.Kind() == reflect.Interface { // nothing is to be put there
			continue
		}
		d := 2 * editDistance(plainName(name), plainName(known))
		if len(plainName(name)) != len(known) {
			d++ // letters swapped are likelier than letters lost
		}
		if d < distance {
			best, distance = known, d
		}
	}
	if best != "" {
		msg += fmt.Sprintf("; did you mean %q?", best)
	}
	return errors.New(msg)
}

// editDistance is Levenshtein's, for names: anything long is far away.
func editDistance(a, b string) int {
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return longest
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func wrongType(path, want string, got any) error {
	kind := "null"
	switch got.(type) {
	case string:
		kind = "a string"
	case json.Number:
		kind = "the number " + clip(fmt.Sprint(got))
	case bool:
		kind = fmt.Sprint(got)
	case []any:
		kind = "a list"
	case map[string]any:
		kind = "an object"
	}
	return fmt.Errorf("%sexpected %s, got %s", where(path), want, kind)
}

func where(path string) string {
	if path == "" {
		return ""
	}
	return path + ": "
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + clip(name)
}
