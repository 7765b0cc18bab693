package web

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzForm: whatever is sent, it is a form of valid text or one of three
// refusals; and a form that is encoded again is the same form.
func FuzzForm(f *testing.F) {
	const parts = "multipart/form-data; boundary=b"
	for _, seed := range [][2]string{
		{"application/x-www-form-urlencoded", "username=ann%40example.org&password=a+b%20c"},
		{"application/x-www-form-urlencoded; charset=UTF-8", "a=1&a=2&&=&b"},
		{"application/x-www-form-urlencoded", "%zz=%ff;"},
		{parts, "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b--\r\n"},
		{parts, "--b\nContent-Disposition: form-data; name=a\n\n1\n--b--"},
		{parts, "--b\r\nContent-Disposition: form-data; name=\"a\"; filename=\"x\"\r\n\r\n\xff\r\n--b\r\n"},
		{parts, "--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=41\r\n--b--"},
		{"application/json", "{}"},
		{"", ""},
	} {
		f.Add(seed[0], []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		r := httptest.NewRequest(http.MethodPost, "/?query=x", bytes.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		got, err := (&Server{}).readForm(httptest.NewRecorder(), r)
		if err != nil {
			if !errors.Is(err, errTooLarge) && !errors.Is(err, errMediaType) && !errors.Is(err, errForm) {
				t.Fatalf("another error: %v", err)
			}
			return
		}
		if len(body) > maxBody {
			t.Fatal("a body over the limit was read")
		}
		for name, values := range got.values {
			if !utf8.ValidString(name) || !utf8.ValidString(strings.Join(values, "")) {
				t.Fatalf("not UTF-8: %q %q", name, values)
			}
		}
		again, err := decodeForm("application/x-www-form-urlencoded", "", []byte(url.Values(got.values).Encode()))
		if err != nil || !reflect.DeepEqual(again, got.values) {
			t.Errorf("encoded again as urlencoded: %q, %v, want %q", again, err, got.values)
		}
		if len(got.values) > maxParts || bytes.Contains(body, []byte("--fuzz")) {
			return
		}
		// Multipart can't tell every name.
		want, fields := map[string][]string{}, 0
		for _, values := range got.values {
			want[fmt.Sprint(len(want))] = values
			fields += len(values)
		}
		again, err = decodeForm("multipart/form-data", "fuzz", encodeParts(want))
		if fields > maxParts {
			if err == nil {
				t.Errorf("%d parts were read", fields)
			}
			return
		}
		if err != nil || !reflect.DeepEqual(again, want) {
			t.Errorf("encoded again as multipart: %q, %v, want %q", again, err, want)
		}
	})
}

func encodeParts(values map[string][]string) []byte {
	var body bytes.Buffer // which takes all that is written
	w := multipart.NewWriter(&body)
	_ = w.SetBoundary("fuzz")
	for name, all := range values {
		for _, value := range all {
			part, _ := w.CreateFormField(name)
			_, _ = io.WriteString(part, value)
		}
	}
	_ = w.Close()
	return body.Bytes()
}
