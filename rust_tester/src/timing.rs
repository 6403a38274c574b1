// SPDX-License-Identifier: GPL-2.0-only
//! Many equal calls, each of them timed.
//!
//! Twin of `c_tester/src/timing.c`: the same names, order and comments.

use std::os::fd::BorrowedFd;

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::error::Error;
use crate::sys::{self, Errno, Transfer};

/// Any byte but zero: a buffer filled with it is certain to have all its pages.
const TOUCHED: u8 = 0x5a;

/// A run of timed calls; it can be stopped by a signal and taken up again.
pub struct TimingRun {
    /// Of each call; its address is the buffer's.
    request: Transfer,
    calls: usize,
    /// Each call gets a buffer of its own.
    fresh: bool,
    clock: libc::clockid_t,
    /// The one that all calls share, unless fresh.
    buffer: Vec<u8>,
    /// One per call.
    latency_ns: Vec<i64>,
    /// One per call.
    minor_faults: Vec<i64>,
}

fn with_capacity(length: usize) -> Result<Vec<i64>, Error> {
    let mut numbers = Vec::new();
    numbers
        .try_reserve_exact(length)
        .map_err(|_| Error::Memory)?;
    Ok(numbers)
}

impl TimingRun {
    /// Allocate what a run needs before its first call.
    pub fn new(
        request: Transfer,
        calls: usize,
        fresh: bool,
        clock: libc::clockid_t,
    ) -> Result<Self, Error> {
        let size = if fresh { 0 } else { request.size };
        let mut buffer = sys::zeroed(size).map_err(|_| Error::Memory)?;
        let latency_ns = with_capacity(calls)?;
        let minor_faults = with_capacity(calls)?;
        buffer.fill(TOUCHED);
        Ok(Self {
            request,
            calls,
            fresh,
            clock,
            buffer,
            latency_ns,
            minor_faults,
        })
    }

    /// What the clock covers: one system call and, if fresh, the allocation of its buffer, as in a
    /// loop that makes a vector and reads into it. Not the release of that buffer.
    fn timed_call(&mut self, fd: BorrowedFd<'_>) -> Result<(usize, i64), Errno> {
        let mut request = self.request;
        let start_ns = sys::clock_ns(self.clock)?;
        let mut fresh = if self.fresh {
            sys::zeroed(request.size)?
        } else {
            Vec::new()
        };
        let buffer = if self.fresh {
            &mut fresh
        } else {
            &mut self.buffer
        };
        request.address = buffer.as_mut_ptr().expose_provenance();
        let moved = sys::transfer(fd, &request)?;
        let end_ns = sys::clock_ns(self.clock)?;
        Ok((moved, end_ns - start_ns))
    }

    /// Make the calls that are left. Page faults are counted around the timed part, not in it.
    /// Returns what the last call moved; a result that is not the size ended the run.
    pub fn calls(&mut self, fd: BorrowedFd<'_>) -> Result<usize, Errno> {
        let mut moved = self.request.size;
        while self.latency_ns.len() < self.calls && moved == self.request.size {
            let faults = sys::thread_minor_faults();
            let latency_ns;
            (moved, latency_ns) = self.timed_call(fd)?;
            self.minor_faults.push(sys::thread_minor_faults() - faults);
            self.latency_ns.push(latency_ns);
        }
        Ok(moved)
    }
}

/// What a run of timed calls measured: one number per call, in the order of calls.
#[pyclass(frozen, module = "mdriver_tester_rust")]
pub struct Timing {
    /// Duration of each call in nanoseconds.
    #[pyo3(get)]
    latency_ns: Py<PyTuple>,
    /// Page faults of the calling thread that needed no disk, during each call.
    #[pyo3(get)]
    minor_faults: Py<PyTuple>,
}

impl Timing {
    /// The result of a run that made all its calls.
    pub fn new(py: Python<'_>, run: &TimingRun) -> PyResult<Self> {
        Ok(Self {
            latency_ns: PyTuple::new(py, &run.latency_ns)?.unbind(),
            minor_faults: PyTuple::new(py, &run.minor_faults)?.unbind(),
        })
    }
}
