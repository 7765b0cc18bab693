package web

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"kwai/internal/auth"
)

// maxBody bounds a body, in bytes.
const maxBody = 64 << 10

var (
	errTooLarge  = &httpError{http.StatusRequestEntityTooLarge, "The body is larger than 64 KiB."}
	errMediaType = &httpError{http.StatusUnsupportedMediaType, "Send the fields as application/x-www-form-urlencoded or multipart/form-data, in UTF-8."}
	errForm      = &httpError{http.StatusBadRequest, "The form can't be decoded."}
)

// form has the fields of a request's body. It collects what is wrong with them, so
// that one answer has all of it.
type form struct {
	values map[string][]string
	wrong  []auth.Field
}

// readForm decodes the body; the query string is never looked at. Its errors
// are errTooLarge, errMediaType, errForm and auth.ErrBusy.
func (s *Server) readForm(w http.ResponseWriter, r *http.Request) (*form, error) {
	if r.Header.Get("Content-Encoding") != "" {
		return nil, errMediaType
	}
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := strings.ToLower(params["charset"])
	if err != nil || !slices.Contains(charsets, charset) && !slices.Contains(asciiCharsets, charset) {
		return nil, errMediaType
	}
	if r.ContentLength > maxBody {
		return nil, errTooLarge
	}
	if kind != "application/x-www-form-urlencoded" && kind != "multipart/form-data" {
		return nil, errMediaType
	}
	body, err := s.readBody(w, r)
	if err != nil {
		return nil, err
	}
	values, err := decodeForm(kind, params["boundary"], body)
	if err != nil {
		return nil, errForm
	}
	if slices.Contains(asciiCharsets, charset) && !isASCII(values) {
		return nil, errMediaType
	}
	return &form{values: values}, nil
}

var (
	charsets = []string{"", "utf-8", "utf8"}
	// Libraries name these by default. ASCII is the same in them as in UTF-8; other
	// characters would be a guess.
	asciiCharsets = []string{"us-ascii", "ascii", "iso-8859-1", "latin1", "windows-1252"}
)

func isASCII(values map[string][]string) bool {
	return every(values, func(text string) bool {
		return !strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf })
	})
}

// every reports whether all names and values of a form are as they must be.
func every(values map[string][]string, fit func(string) bool) bool {
	for name, all := range values {
		if !fit(name) || slices.ContainsFunc(all, func(value string) bool { return !fit(value) }) {
			return false
		}
	}
	return true
}

const (
	// An honest body is small, and is always read.
	smallBody = 8 << 10
	// maxBodies bounds the larger ones that are read at the same time, in bytes:
	// slow clients must not fill the memory.
	maxBodies = 64 << 20
)

func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	size := r.ContentLength
	if size < 0 {
		size = maxBody
	}
	if size > smallBody {
		defer s.bodies.Add(-size)
		if s.bodies.Add(size) > maxBodies {
			return nil, auth.ErrBusy
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, errTooLarge
	}
	if err != nil {
		return nil, errForm // it broke off, or came too slowly
	}
	return body, nil
}

// decodeForm decodes a body of either kind; the boundary is multipart's.
func decodeForm(kind, boundary string, body []byte) (map[string][]string, error) {
	var values map[string][]string
	var err error
	if kind == "multipart/form-data" {
		values, err = decodeMultipart(boundary, body)
	} else {
		// A semicolon is a character like others, as browsers have it (WHATWG
		// URL, 5.1); ParseQuery refuses it.
		values, err = url.ParseQuery(strings.ReplaceAll(string(body), ";", "%3B"))
	}
	if err == nil && !every(values, utf8.ValidString) {
		err = errors.New("not UTF-8")
	}
	return values, err
}

// maxParts bounds the fields of a multipart form, each of which costs much more
// than its bytes.
const maxParts = 100

func decodeMultipart(boundary string, body []byte) (map[string][]string, error) {
	if boundary == "" {
		return nil, errors.New("no boundary")
	}
	values := make(map[string][]string)
	// The reader takes the end of the input for the end of the form; only the
	// last boundary is, which may lack its line break.
	whole := io.MultiReader(bytes.NewReader(body), strings.NewReader("\r\n"), cutOff{})
	parts := multipart.NewReader(whole, boundary)
	for range maxParts + 1 { // and the end
		part, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			return values, nil
		}
		if err != nil {
			return nil, err
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return nil, err
		}
		if part.FileName() != "" {
			return nil, errors.New("a file")
		}
		values[part.FormName()] = append(values[part.FormName()], string(value))
	}
	return nil, errors.New("too many parts")
}

// cutOff follows a body: reading on is an error.
type cutOff struct{}

func (cutOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// optional is a field's value, "" if it is missing.
func (f *form) optional(name string) string {
	switch all := f.values[name]; len(all) {
	case 0:
		return ""
	case 1:
		return all[0]
	default:
		f.refuse(name, "This field must be given once.")
		return ""
	}
}

// has says whether a field is there, whatever its value.
func (f *form) has(name string) bool { return len(f.values[name]) > 0 }

// required is the value of a field that must be there, and not empty.
func (f *form) required(name string) string {
	value := f.optional(name)
	if value == "" && len(f.values[name]) < 2 {
		f.refuse(name, "This field is required.")
	}
	return value
}

func (f *form) refuse(name, message string) {
	f.wrong = append(f.wrong, auth.Field{Name: name, Message: message})
}

// err is what was wrong with the fields, or nil.
func (f *form) err() error {
	if len(f.wrong) == 0 {
		return nil
	}
	return auth.InvalidFields(f.wrong...)
}
