// SPDX-License-Identifier: GPL-2.0-only
//! From numbers to Python exceptions, and calls without the interpreter's lock.
//!
//! Twin of `c_tester/src/error.c`: the same names, order and comments.

use std::ffi::OsString;

use pyo3::exceptions::{PyMemoryError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::sys::{self, Errno};

/// All that can go wrong; each becomes one Python exception.
pub enum Error {
    /// The same class and sense as Python's own file objects.
    Closed,
    /// A number below zero that must not be; its name.
    Negative(&'static str),
    /// A number below 1 that must not be; its name.
    NotPositive(&'static str),
    /// A number above its limit; its name.
    TooMany(&'static str, usize),
    /// A way to count that there is not.
    NotAMethod,
    /// What there is no way to repeat.
    NotAnOperation,
    /// A path with a null byte in it.
    NullByte,
    /// No memory for what the call needs.
    Memory,
    /// A system call failed; a file name if it was given one.
    Os(Errno, Option<OsString>),
    /// A transfer of another length has no errno of its own: EIO is the nearest.
    Moved { moved: usize, wanted: usize },
    /// Not an `OSError`: EAGAIN would make it a `BlockingIOError`, which it is not.
    Thread {
        started: usize,
        wanted: usize,
        error: Errno,
    },
    /// What a signal handler raised.
    Python(PyErr),
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        match error {
            Error::Closed => PyValueError::new_err("I/O operation on closed device"),
            Error::Negative(name) => PyValueError::new_err(format!("{name} must not be negative")),
            Error::NotPositive(name) => PyValueError::new_err(format!("{name} must be at least 1")),
            Error::TooMany(name, limit) => {
                PyValueError::new_err(format!("{name} must be at most {limit}"))
            }
            Error::NotAMethod => PyValueError::new_err("method must be 'lock', 'add' or 'racy'"),
            Error::NotAnOperation => PyValueError::new_err(
                "operation must be 'read', 'write', 'pread', 'pwrite' or 'add'",
            ),
            Error::NullByte => PyValueError::new_err("embedded null byte"),
            Error::Memory => PyMemoryError::new_err(()),
            Error::Os(errno, None) => PyOSError::new_err((errno.0, sys::error_text(errno))),
            Error::Os(errno, Some(path)) => {
                PyOSError::new_err((errno.0, sys::error_text(errno), path))
            }
            Error::Moved { moved, wanted } => {
                PyOSError::new_err((Errno::EIO.0, format!("moved {moved} of {wanted} bytes")))
            }
            Error::Thread {
                started,
                wanted,
                error,
            } => PyRuntimeError::new_err(format!(
                "only {started} of {wanted} threads started: {}",
                sys::error_text(error)
            )),
            Error::Python(error) => error,
        }
    }
}

/// Make a call without the interpreter's lock; repeat it after a signal whose handler did not
/// raise, as PEP 475 says.
pub fn call_detached<T: Send>(
    py: Python<'_>,
    mut call: impl FnMut() -> Result<T, Errno> + Send,
) -> Result<T, Error> {
    loop {
        match py.detach(&mut call) {
            Err(Errno::EINTR) => py.check_signals().map_err(Error::Python)?,
            Err(errno) => return Err(Error::Os(errno, None)),
            Ok(result) => return Ok(result),
        }
    }
}
