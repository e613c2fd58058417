package logging

import (
	"fmt"
	"runtime"
	"strings"
)

// Panic is what a log may say of the value of a panic: the text of an error of Go's runtime, which has types and numbers in
// it; of anything else its type, for the value may be whatever was at hand. The stack tells where it was raised.
func Panic(recovered any) string {
	if e, ok := recovered.(runtime.Error); ok {
		return e.Error()
	}
	return fmt.Sprintf("a value of type %T", recovered)
}

const mostFrames = 64

// Stack is the caller's stack as functions and lines. Unlike debug.Stack it leaves out the functions' arguments, among
// which an array shows its bytes. skip leaves out callers of Stack, as runtime.Callers counts them.
func Stack(skip int) string {
	pcs := make([]uintptr, mostFrames)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(skip+1, pcs)])
	var b strings.Builder
	for {
		f, more := frames.Next()
		fmt.Fprintf(&b, "%s\n\t%s:%d\n", f.Function, f.File, f.Line)
		if !more {
			return b.String()
		}
	}
}
