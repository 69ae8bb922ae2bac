package nearest

import "strings"

// longest bounds a word that is looked at, in octets. No word of ours is longer, and the
// cost of a comparison grows with the square of it.
const longest = 40

// Of returns that of words which word was probably meant to be, the first of those equally
// near, and "" where none is near. Near is a word that differs by one letter in three, by
// one at least: letters put in, left out, changed, or swapped with their neighbour; or the
// only one that begins with three or more letters of word. Upper and lower case are equal.
func Of(word string, words []string) string {
	if len(word) > longest {
		return ""
	}
	word = strings.ToLower(word)
	best, least, begun := "", max(1, len(word)/3)+1, ""
	begins := 0
	for _, w := range words {
		lower := strings.ToLower(w)
		// What shares no letter is not near, however short it is.
		if d := distance(word, lower); d < least && d < len(word) {
			best, least = w, d
		}
		if len(word) >= 3 && strings.HasPrefix(lower, word) {
			begun = w
			begins++
		}
	}
	if best == "" && begins == 1 {
		return begun
	}
	return best
}

// distance returns how many letters have to be put in, left out, changed, or swapped with
// their neighbour to make b of a; no letter is touched twice.
func distance(a, b string) int {
	if len(b) > 2*longest {
		return len(b)
	}
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			changed := last[j-1]
			if a[i-1] != b[j-1] {
				changed++
			}
			next[j] = min(changed, last[j]+1, next[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, last = last, next
	}
	return last[len(b)]
}
