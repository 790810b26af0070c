package registry

import (
	"net/http"
	"testing"
	"time"
)

// The longest wait that a host without an answer asks for is told, within a limit; one that
// answers after all wants none.
func TestRecordWait(t *testing.T) {
	var r Recorder
	ctx := WithRecorder(t.Context(), &r)
	answer := func(host string, code int, retryAfter string) {
		recordWait(ctx, host, &http.Response{StatusCode: code, Header: http.Header{"Retry-After": {retryAfter}}})
	}
	near := func(want time.Duration) {
		t.Helper()
		if got := r.RetryAfter(); got > want || got < want-5*time.Second {
			t.Errorf("the wait is %s, want %s", got, want)
		}
	}
	near(0)
	recordWait(ctx, "a", nil)
	answer("a", http.StatusTooManyRequests, "")
	answer("a", http.StatusNotFound, "60")
	near(0)
	answer("a", http.StatusTooManyRequests, "60")
	answer("b", http.StatusServiceUnavailable, "30")
	near(time.Minute)
	answer("a", http.StatusOK, "")
	near(30 * time.Second)
	answer("b", http.StatusTooManyRequests, "99999999999999")
	near(maxFailedTime)
	recordWait(t.Context(), "a", &http.Response{StatusCode: http.StatusTooManyRequests}) // nobody records
}
