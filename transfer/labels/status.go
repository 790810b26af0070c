package labels

import "time"

// Status is what is known of a subject's referrers.
type Status string

// The statuses.
const (
	// Present says that there are referrers, and that all are known: the registry listed
	// them, or one of cosign's tags or the image's index holds them.
	Present Status = "present"
	// Absent says that every host asked answered that there are none.
	Absent Status = "absent"
	// Unknown says that what refers to it is not known in full.
	Unknown Status = "unknown"
	// Truncated says that there are more than a limit let in.
	Truncated Status = "truncated"
)

// Statuses are all of them.
var Statuses = []Status{Present, Absent, Unknown, Truncated}

// Worse returns the status of two that says less: unknown, then truncated, then
// present, then absent.
func (s Status) Worse(t Status) Status {
	rank := map[Status]int{Absent: 1, Present: 2, Truncated: 3, Unknown: 4}
	if rank[t] > rank[s] {
		return t
	}
	return s
}

// Incomplete reports whether there may be more than is known.
func (s Status) Incomplete() bool { return s == Unknown || s == Truncated }

// Checkmark returns the labels that say what is known of a subject's referrers, and
// since when.
func Checkmark(status Status, at time.Time) map[string]string {
	return map[string]string{StatusKey: string(status), CheckedKey: at.UTC().Format(time.RFC3339)}
}

// ReadCheckmark returns what the labels of a subject say. A subject that was never
// asked about is Unknown since the zero time, and so is a status of another version.
func ReadCheckmark(subject map[string]string) (Status, time.Time) {
	checked, err := time.Parse(time.RFC3339, subject[CheckedKey])
	if err != nil {
		return Unknown, time.Time{}
	}
	switch status := Status(subject[StatusKey]); status {
	case Present, Absent, Truncated:
		return status, checked
	default:
		return Unknown, checked
	}
}
