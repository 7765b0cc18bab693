package main

import (
	"bufio"
	"strings"
	"testing"
)

func TestReadKeepsWhatMustBeTheSame(t *testing.T) {
	t.Parallel()
	const head = "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\n"
	const rest = "Retry-After: *\r\nContent-Length: 4\r\n\r\nno\r\n"
	c := &client{r: bufio.NewReader(strings.NewReader(head + "Date: Mon, 02 Jan 2006 15:04:05 GMT\r\n" + strings.Replace(rest, "*", "61", 1) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))}
	if err := c.read(); err != nil || c.status != 401 {
		t.Errorf("the first is %d, %v", c.status, err)
	}
	if c.retry != 61 {
		t.Errorf("the first says to retry after %g", c.retry)
	}
	if string(c.answer) != head+rest {
		t.Errorf("the first is\n%q, want\n%q", c.answer, head+rest)
	}
	if err := c.read(); err != nil || c.status != 200 || c.retry != 0 {
		t.Errorf("the second is %d %q, retry after %g, %v", c.status, c.answer, c.retry, err)
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "SMTP says no\r\n\r\n"} {
		if err := (&client{r: bufio.NewReader(strings.NewReader(text))}).read(); err == nil {
			t.Errorf("it takes %q for an answer", text)
		}
	}
}
