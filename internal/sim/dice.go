package sim

import (
	"math"
	"math/bits"
	"time"
)

// dice are a source of random numbers (splitmix64). They are a small value, so that each thing has its own.
type dice struct{ state uint64 }

// diceFor returns the dice for what the numbers name.
func diceFor(seed uint64, names ...uint64) dice {
	d := dice{seed}
	for _, n := range names {
		d.state = d.next() ^ n*0x9e3779b97f4a7c15
	}
	return d
}

func (d *dice) next() uint64 {
	d.state += 0x9e3779b97f4a7c15
	z := d.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// n is at least 0 and less than n.
func (d *dice) n(n int64) int64 {
	hi, _ := bits.Mul64(d.next(), uint64(n))
	return int64(hi)
}

// upTo is a duration less than limit.
func (d *dice) upTo(limit time.Duration) time.Duration {
	return time.Duration(d.n(int64(max(limit, 1))))
}

// unit is at least 0 and less than 1.
func (d *dice) unit() float64 { return float64(d.next()>>11) / (1 << 53) }

// hits is true with the probability p.
func (d *dice) hits(p float64) bool { return p > 0 && d.unit() < p }

// one is true once in n times.
func (d *dice) one(n int64) bool { return d.n(n) == 0 }

// about is exponentially distributed.
func (d *dice) about(mean time.Duration) time.Duration {
	return time.Duration(-math.Log(1-d.unit()) * float64(mean))
}

// tail is from a millisecond to the longest, each power of ten as often as the next.
func (d *dice) tail(longest time.Duration) time.Duration {
	return time.Duration(float64(time.Millisecond) * math.Pow(float64(longest/time.Millisecond), d.unit()))
}
