package listeners

import "runtime"

// Yield lets other goroutines run first if [Feed.Append] has woken a listener
// that waited. A writer calls it after Append, when it holds no lock, so that
// listeners hear at once: Go's scheduler would else run them where the writer
// runs, when that has nothing more to do, or have another processor fetch them,
// which it does after a pause. Yield does not wait for a listener: where there
// are other processors, one of them goes on with the writer.
func (f *Feed) Yield() {
	if f.woken.Load() && f.woken.CompareAndSwap(true, false) {
		runtime.Gosched()
	}
}
