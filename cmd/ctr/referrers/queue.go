package referrers

import (
	"sync"
	"time"
)

const (
	// maxTries is how often one image is fetched where its registry asks to be left alone.
	maxTries = 2
	// maxPause is the longest that a registry is left alone.
	maxPause = 10 * time.Minute
)

// fetchQueue is the images that are still to be fetched. A registry that asks to be left alone is,
// while others are asked. Safe for concurrent use.
type fetchQueue struct {
	mu     sync.Mutex
	jobs   []*fetchJob
	paused map[string]time.Time // by registry, until when
}

// fetchJob is one image to fetch.
type fetchJob struct {
	registry string
	tries    int
	ref      string
	result   *fetchedImage
}

// next takes an image whose registry may be asked. Where there is none now, wait is how long until
// there may be; where none is left, both are zero.
func (q *fetchQueue) next(now time.Time) (job *fetchJob, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, j := range q.jobs {
		left := q.paused[j.registry].Sub(now)
		if left <= 0 {
			q.jobs = append(q.jobs[:i:i], q.jobs[i+1:]...)
			j.tries++
			return j, 0
		}
		if wait == 0 || left < wait {
			wait = left
		}
	}
	return nil, wait
}

// pause leaves the image's registry alone, and reports whether the image is tried again.
func (q *fetchQueue) pause(job *fetchJob, lasts time.Duration, now time.Time) (again bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.paused == nil {
		q.paused = map[string]time.Time{}
	}
	if until := now.Add(min(lasts, maxPause)); until.After(q.paused[job.registry]) {
		q.paused[job.registry] = until
	}
	if job.tries >= maxTries {
		return false
	}
	q.jobs = append(q.jobs, job)
	return true
}
