// Package wire is DNS messages as bytes: it parses a question and its OPT in place, builds answers, checks those of
// upstreams, and renders one answer for many clients.
//
// The model has three values. A [Query] is one question, parsed where it lies, with its name lower-cased beside it. An
// [Answer] is one packed response, immutable, with a table of its records; it comes from [Pack] (our own records) or
// [ParseAnswer] (an upstream's message). [Answer.Append] renders an Answer for one Query: it copies the bytes, puts in
// the client's ID, flags and letter case, ages the TTLs, rotates the records, cuts to the client's limit and ends with
// an OPT of our own. Parse and Append allocate nothing.
//
// Nothing in an Answer moves but whole records, and only those that no compression pointer enters; names in our own
// answers are compressed into the question only, and a glue record's owner points at the name it belongs to and is
// patched when rendered.
//
// The package knows nothing of time, logs, sockets or any other package of this module.
package wire
