package password

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// executable is this program, even if its file has been replaced since.
func executable() (string, error) { return "/proc/self/exe", nil }

// nameProcess names the process for ps and top, which would show "exe".
func nameProcess() { _ = os.WriteFile("/proc/self/comm", []byte("kwai-password"), 0) }

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// startNice starts a command whose nice value is higher by that much than this
// process's.
func startNice(cmd *exec.Cmd, nice int) (err error) {
	onLastThread(func() {
		// On Linux a thread has a nice value of its own, which a process takes
		// over from the thread that starts it.
		if now, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0); err == nil {
			// The system call returns 20 minus the nice value. If it can't be set,
			// the worker gives way less.
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, min(20-now+nice, 19))
		}
		err = cmd.Start()
	})
	return err
}

// onLastThread runs f on a thread that ends with it: without privileges, it
// couldn't get its priority back.
func onLastThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with its goroutine
		if syscall.Gettid() == syscall.Getpid() {
			// The main thread doesn't end: keep it from taking this goroutine.
			onLastThread(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}
