// SPDX-License-Identifier: GPL-2.0-only
//! Threads that count up one value on the device.
//!
//! Twin of `c_tester/src/count.c`: the same names, order and comments.

use std::os::fd::BorrowedFd;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, Builder, Scope, ScopedJoinHandle};

use pyo3::prelude::*;

use crate::error::Error;
use crate::sys::{self, Direction, Errno, Transfer};

const VALUE_SIZE: usize = size_of::<u64>();
const S_PER_NS: f64 = 1e-9;

/// More would say nothing new, and could use up what the system has of threads.
pub const MAX_THREADS: usize = 1024;

/// How a thread adds one.
#[derive(Clone, Copy, Default)]
pub enum Method {
    /// Read, add, write, with the one lock held.
    #[default]
    Lock,
    /// No lock: the device adds, by `MDRIVER_IOC_ADD`.
    Add,
    /// Neither: increments may be lost.
    Racy,
}

impl Method {
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "lock" => Some(Self::Lock),
            "add" => Some(Self::Add),
            "racy" => Some(Self::Racy),
            _ => None,
        }
    }
}

/// A run of counting threads: what it is asked for, then what came of it.
#[derive(Default)]
pub struct CountRun {
    threads: usize,
    /// Of each thread.
    increments: usize,
    method: Method,
    /// Of the value, in bytes.
    offset: i64,
    start: u64,
    actual: u64,
    real_s: f64,
    user_s: f64,
    system_s: f64,
    /// Threads that did start.
    started: usize,
    /// Why the next one did not.
    thread_error: Option<Errno>,
}

/// What all threads share: one descriptor and one lock.
struct Shared<'fd> {
    fd: BorrowedFd<'fd>,
    offset: i64,
    increments: usize,
    method: Method,
    lock: Mutex<()>,
    /// All but `VALUE_SIZE`, which stops every thread; the first one stays.
    moved: OnceLock<Result<usize, Errno>>,
}

/// Read or write the value. Repeated after a signal without asking Python: only its main thread
/// runs handlers, and that one waits for the threads. Returns what was moved.
fn move_value(
    fd: BorrowedFd<'_>,
    direction: Direction,
    value: &mut u64,
    offset: i64,
) -> Result<usize, Errno> {
    let request = Transfer {
        direction,
        address: (&raw mut *value).expose_provenance(),
        size: VALUE_SIZE,
        offset: Some(offset),
    };
    loop {
        match sys::transfer(fd, &request) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

fn increment(shared: &Shared<'_>) -> Result<usize, Errno> {
    let mut value = 0;
    let moved = move_value(shared.fd, Direction::Read, &mut value, shared.offset)?;
    if moved != VALUE_SIZE {
        return Ok(moved);
    }
    value = value.wrapping_add(1);
    move_value(shared.fd, Direction::Write, &mut value, shared.offset)
}

fn increment_locked(shared: &Shared<'_>) -> Result<usize, Errno> {
    // No thread panics while it holds the lock, so it is never poisoned.
    let _guard = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
    increment(shared)
}

/// Returns what was moved if the device had moved it.
fn increment_on_device(shared: &Shared<'_>) -> Result<usize, Errno> {
    // The write of the start value has refused a negative one already.
    let offset = u64::try_from(shared.offset).map_err(|_| Errno::EINVAL)?;
    sys::ioctl_add(shared.fd, offset, 1)?;
    Ok(VALUE_SIZE)
}

fn increment_by_method(shared: &Shared<'_>) -> Result<usize, Errno> {
    match shared.method {
        Method::Add => increment_on_device(shared),
        Method::Racy => increment(shared),
        Method::Lock => increment_locked(shared),
    }
}

fn stop_threads(shared: &Shared<'_>, moved: Result<usize, Errno>) {
    // It is an error to be the second; the first one stays.
    let _ = shared.moved.set(moved);
}

fn count_thread(shared: &Shared<'_>) {
    for _ in 0..shared.increments {
        if shared.moved.get().is_some() {
            return;
        }
        let moved = increment_by_method(shared);
        if moved != Ok(VALUE_SIZE) {
            stop_threads(shared, moved);
        }
    }
}

impl CountRun {
    pub fn new(threads: usize, increments: usize, offset: i64, start: u64, method: Method) -> Self {
        Self {
            threads,
            increments,
            method,
            offset,
            start,
            ..Self::default()
        }
    }

    /// A thread that cannot start stops those that did, so that nothing is left behind.
    fn start_threads<'scope>(
        &mut self,
        shared: &'scope Shared<'_>,
        scope: &'scope Scope<'scope, '_>,
    ) -> Vec<ScopedJoinHandle<'scope, ()>> {
        let mut threads = Vec::with_capacity(self.threads);
        while self.started < self.threads && self.thread_error.is_none() {
            match Builder::new().spawn_scoped(scope, || count_thread(shared)) {
                Ok(thread) => {
                    threads.push(thread);
                    self.started += 1;
                }
                Err(error) => self.thread_error = Some(Errno(error.raw_os_error().unwrap_or(0))),
            }
        }
        if self.thread_error.is_some() {
            stop_threads(shared, Ok(0));
        }
        threads
    }

    /// Start all threads, wait for all, and note what that took.
    #[allow(clippy::cast_precision_loss)] // exact up to 2**53 ns, which is 104 days
    fn time_threads(&mut self, shared: &Shared<'_>) -> Result<usize, Errno> {
        let before = sys::process_times();
        let start_ns = sys::clock_ns();
        thread::scope(|scope| {
            for thread in self.start_threads(shared, scope) {
                // The scope alone would not wait for what the system does at a thread's end.
                drop(thread.join());
            }
        });
        let end_ns = sys::clock_ns();
        let after = sys::process_times();
        self.real_s = (end_ns - start_ns) as f64 * S_PER_NS;
        self.user_s = after.user_s - before.user_s;
        self.system_s = after.system_s - before.system_s;
        shared.moved.get().copied().unwrap_or(Ok(VALUE_SIZE))
    }

    /// The whole run: write the start value, count, read the end value.
    pub fn threads(&mut self, fd: BorrowedFd<'_>) -> Result<usize, Errno> {
        let mut start = self.start;
        let mut moved = move_value(fd, Direction::Write, &mut start, self.offset)?;
        if moved == VALUE_SIZE {
            let shared = Shared {
                fd,
                offset: self.offset,
                increments: self.increments,
                method: self.method,
                lock: Mutex::new(()),
                moved: OnceLock::new(),
            };
            moved = self.time_threads(&shared)?;
        }
        if moved == VALUE_SIZE {
            moved = move_value(fd, Direction::Read, &mut self.actual, self.offset)?;
        }
        Ok(moved)
    }
}

/// What came of counting up one value with several threads.
#[pyclass(frozen, get_all, module = "mdriver_tester_rust")]
pub struct Count {
    /// The value that no lost increment gives, modulo 2**64.
    target: u64,
    /// The value read after the last thread ended.
    actual: u64,
    /// Seconds from before the first thread started to after the last ended.
    real_s: f64,
    /// Seconds of processor time of this process in user mode meanwhile.
    user_s: f64,
    /// Seconds of processor time of this process in the kernel meanwhile.
    system_s: f64,
}

impl Count {
    /// The result of a run whose last transfer moved `moved` bytes.
    pub fn new(run: &CountRun, moved: usize) -> Result<Self, Error> {
        if let Some(error) = run.thread_error {
            return Err(Error::Thread {
                started: run.started,
                wanted: run.threads,
                error,
            });
        }
        if moved != VALUE_SIZE {
            return Err(Error::Moved {
                moved,
                wanted: VALUE_SIZE,
            });
        }
        let added = (run.threads as u64).wrapping_mul(run.increments as u64);
        Ok(Self {
            target: run.start.wrapping_add(added),
            actual: run.actual,
            real_s: run.real_s,
            user_s: run.user_s,
            system_s: run.system_s,
        })
    }
}
