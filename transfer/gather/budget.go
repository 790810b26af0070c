package gather

import (
	"sync/atomic"

	"github.com/transfer-referrers/transfer-referrers/transfer/discovery"
)

const (
	// maxTold is how many entries of listings one pull keeps in memory after it
	// has judged them: those that it left, with their reasons, and those that
	// it can compare with what is stored. A thousand subjects with a thousand
	// entries each would fill a node's memory.
	maxTold = 10_000
	// minDoubts is how many of each subject's reasons to doubt are kept in any case.
	minDoubts = 8
)

// budget is what is left of maxTold; all subjects of a pull share it.
type budget struct{ spent atomic.Int64 }

// spend reports whether n more entries may be kept.
func (b *budget) spend(n int) bool { return b.spent.Add(int64(n)) <= maxTold }

// note records what was left, and that the status can be no better than given. Over
// the budget only the status is kept.
func (s *subject) note(status discovery.Status, left Left) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.listed {
		s.base = s.base.Worse(status)
	}
	s.status = s.status.Worse(status)
	if status != "" {
		s.doubts++
	}
	if (status == "" || s.doubts > minDoubts) && !s.budget.spend(1) {
		s.untold++
		return
	}
	left.Reason, left.Status = discovery.Shorten(left.Reason), status
	s.left = append(s.left, left)
}
