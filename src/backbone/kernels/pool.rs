//! A small pool of threads for fork-join over indices: it spins between layers and sleeps between frames.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an idle worker spins before it sleeps: longer than the gap between two layers.
const SPIN: Duration = Duration::from_micros(200);

/// Threads that share the tasks of one [`Pool::run`] at a time; the caller is one of them.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Callers take turns.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Shared {
    /// Number of the run (upper half) and how many of its tasks are unclaimed (lower half).
    ticket: AtomicU64,
    n_tasks: AtomicUsize,
    task: AtomicPtr<()>,
    call: AtomicPtr<()>,
    done: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    sleeping: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

type Call = unsafe fn(*mut (), usize);

/// # Safety
/// `task` is a live `&F`.
unsafe fn call<F: Fn(usize) + Sync>(task: *mut (), index: usize) {
    // SAFETY: `Pool::run` made the pointer from `&F` and outlives every claimed task.
    unsafe { (*task.cast::<F>())(index) }
}

impl Pool {
    /// `threads` in all, the caller included; 0: as many as the processor runs at once.
    ///
    /// Fewer where the system refuses to start one; [`Pool::threads`] says how many.
    pub fn new(threads: usize) -> Pool {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let shared = Arc::new(Shared {
            ticket: AtomicU64::new(0),
            n_tasks: AtomicUsize::new(0),
            task: AtomicPtr::default(),
            call: AtomicPtr::default(),
            done: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleeping: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let workers = (1..threads)
            .map_while(|n| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new().name(format!("kernels-{n}")).spawn(move || shared.work()).ok()
            })
            .collect();
        Pool { shared, workers, turn: Mutex::new(()) }
    }

    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task` once with each index below `n_tasks`, on any thread, and returns when all are done.
    ///
    /// A task must not call `run` on the same pool.
    ///
    /// # Panics
    /// When a task panicked.
    pub fn run<F: Fn(usize) + Sync>(&self, n_tasks: usize, task: F) {
        if self.workers.is_empty() || n_tasks <= 1 {
            (0..n_tasks).for_each(task);
            return;
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let s = &*self.shared;
        let run = (s.ticket.load(Ordering::Relaxed) >> 32).wrapping_add(1) << 32;
        s.n_tasks.store(n_tasks, Ordering::Relaxed);
        s.task.store((&raw const task).cast_mut().cast(), Ordering::Relaxed);
        s.call.store(call::<F> as *mut (), Ordering::Relaxed);
        s.done.store(0, Ordering::Relaxed);
        s.ticket.store(run | n_tasks as u64, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if s.sleeping.load(Ordering::SeqCst) > 0 {
            let _lock = s.lock.lock().unwrap_or_else(PoisonError::into_inner);
            s.wake.notify_all();
        }
        s.claim(run);
        let mut spins = 0u32;
        while s.done.load(Ordering::Acquire) < n_tasks {
            spins += 1;
            if spins < 10_000 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        if s.panicked.swap(false, Ordering::Relaxed) {
            resume_unwind(Box::new("a kernel task panicked"));
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        {
            let _lock = self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Does tasks of this run until none is unclaimed.
    fn claim(&self, run: u64) {
        loop {
            let ticket = self.ticket.load(Ordering::Acquire);
            let n_tasks = self.n_tasks.load(Ordering::Relaxed);
            let task = self.task.load(Ordering::Relaxed);
            let call = self.call.load(Ordering::Relaxed);
            let unclaimed = (ticket & 0xffff_ffff) as usize;
            if ticket & !0xffff_ffff != run || unclaimed == 0 {
                return;
            }
            if self.ticket.compare_exchange(ticket, ticket - 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            // SAFETY: the exchange proves that this run had an unclaimed task, now ours, so its caller still waits in
            // `run`: the closure lives, and the fields read above are this run's.
            let outcome = catch_unwind(AssertUnwindSafe(|| unsafe {
                std::mem::transmute::<*mut (), Call>(call)(task, n_tasks - unclaimed);
            }));
            if outcome.is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.done.fetch_add(1, Ordering::Release);
        }
    }

    fn work(&self) {
        let mut seen = 0;
        loop {
            let mut since = Instant::now();
            let mut spins = 0u32;
            let run = loop {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                let run = self.ticket.load(Ordering::Acquire) & !0xffff_ffff;
                if run != seen {
                    break run;
                }
                std::hint::spin_loop();
                spins += 1;
                if spins.is_multiple_of(64) && since.elapsed() > SPIN {
                    self.sleep(seen);
                    since = Instant::now();
                }
            };
            seen = run;
            self.claim(run);
        }
    }

    fn sleep(&self, seen: u64) {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        while self.ticket.load(Ordering::SeqCst) & !0xffff_ffff == seen && !self.stop.load(Ordering::SeqCst) {
            lock = self.wake.wait(lock).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
    }
}
