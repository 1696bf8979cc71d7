package api

import (
	"cmp"
	"net/url"
	"slices"
)

// page sorts the rows of a list that is made whole and returns those that were
// asked for, and where the next page starts. It keeps what is behind rows.
func page[T any](rows []T, key func(T) string, in *PageParams) (out []T, next string) {
	rows = slices.Clone(rows)
	slices.SortFunc(rows, func(a, b T) int { return cmp.Compare(key(a), key(b)) })
	from, found := slices.BinarySearchFunc(rows, in.After, func(r T, after string) int { return cmp.Compare(key(r), after) })
	if found {
		from++
	}
	out = append([]T{}, rows[from:min(len(rows), from+in.Limit)]...)
	if from+in.Limit < len(rows) {
		next = key(out[len(out)-1])
	}
	return out, next
}

// pages reads a list page after page.
func pages[T any](get func(url.Values) (rows []T, next string, err error)) ([]T, error) {
	all := []T{}
	q := url.Values{"limit": {"1000"}}
	for {
		rows, next, err := get(q)
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
		if next == "" {
			return all, nil
		}
		q.Set("after", next)
	}
}
