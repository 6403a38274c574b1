// SPDX-License-Identifier: GPL-2.0-only
//! An open device and every way to call it.
//!
//! Twin of `c_tester/src/device.c`: the same names, order and comments.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::count::{Count, CountRun, MAX_THREADS, Method};
use crate::error::{Error, call_detached};
use crate::repeat::{Operation, RepeatOpenRun, RepeatRun};
use crate::sys::{self, Direction, Errno, Transfer};
use crate::uapi;

/// Where a counter starts, unless told.
const COUNT_START: u64 = 69;

/// An open device. Each method makes one system call, but for ioctls, repeat,
/// `repeat_open` and `count_up`.
///
/// A failure is `OSError` with the call's errno, or `ValueError` after `close()`.
// The descriptor outlives close() until the last call on it has ended: its number can not be
// given to another file while a thread still uses it.
#[pyclass(frozen, module = "mdriver_tester_rust")]
pub struct Device {
    fd: Mutex<Option<Arc<OwnedFd>>>,
}

impl Device {
    /// No thread panics while it holds the lock, so it is never poisoned.
    fn lock(&self) -> MutexGuard<'_, Option<Arc<OwnedFd>>> {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_fd(&self) -> Result<Arc<OwnedFd>, Error> {
        self.lock().clone().ok_or(Error::Closed)
    }

    /// Make one call on an open device.
    fn call<T: Send>(
        &self,
        py: Python<'_>,
        mut call: impl FnMut(BorrowedFd<'_>) -> Result<T, Errno> + Send,
    ) -> Result<T, Error> {
        let fd = self.open_fd()?;
        let result = call_detached(py, || call(fd.as_fd()));
        py.detach(|| drop(fd));
        result
    }

    fn transfer_raw(&self, py: Python<'_>, request: Transfer) -> PyResult<usize> {
        Ok(self.call(py, |fd| sys::transfer(fd, &request))?)
    }

    /// Read into memory of our own, and hand over what came: never more, should a module say so.
    fn transfer_to_bytes<'py>(
        &self,
        py: Python<'py>,
        size: usize,
        offset: Option<i64>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut memory = sys::zeroed(size).map_err(|_| Error::Memory)?;
        let request = Transfer {
            direction: Direction::Read,
            address: memory.as_mut_ptr().expose_provenance(),
            size,
            offset,
        };
        let moved = self.call(py, |fd| sys::transfer(fd, &request))?;
        let wanted = size;
        let came = memory.get(..moved).ok_or(Error::Moved { moved, wanted })?;
        PyBytes::new_with(py, moved, |bytes| {
            bytes.copy_from_slice(came);
            Ok(())
        })
    }

    fn transfer_from_buffer(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        offset: Option<i64>,
    ) -> PyResult<usize> {
        let buffer = PyUntypedBuffer::get(data)?;
        if !buffer.is_c_contiguous() {
            let error = "memoryview: underlying buffer is not C-contiguous";
            return Err(PyBufferError::new_err(error));
        }
        let moved = self.transfer_raw(
            py,
            Transfer {
                direction: Direction::Write,
                address: buffer.buf_ptr().expose_provenance(),
                size: buffer.len_bytes(),
                offset,
            },
        );
        buffer.release(py);
        moved
    }
}

/// A size in bytes: not negative.
fn size_bytes(size: isize) -> Result<usize, Error> {
    usize::try_from(size).map_err(|_| Error::Negative("size"))
}

/// How many of something: at least 1.
fn positive(name: &'static str, number: isize) -> Result<usize, Error> {
    match usize::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(Error::NotPositive(name)),
    }
}

/// A path as open(2) wants it.
fn encode_path(path: &OsStr) -> Result<CString, Error> {
    CString::new(path.as_bytes()).map_err(|_| Error::NullByte)
}

/// A failed call's result, with the path that it was given.
fn name_path<T>(result: Result<T, Error>, path: OsString) -> Result<T, Error> {
    match result {
        Err(Error::Os(errno, None)) => Err(Error::Os(errno, Some(path))),
        result => result,
    }
}

fn open_device(py: Python<'_>, path: OsString, flags: i32) -> Result<OwnedFd, Error> {
    let encoded = encode_path(&path)?;
    name_path(call_detached(py, || sys::open(&encoded, flags)), path)
}

#[pymethods]
impl Device {
    #[new]
    #[pyo3(signature = (path, flags=libc::O_RDWR), text_signature = "(path, flags=2)")]
    fn new(py: Python<'_>, path: PathBuf, flags: i32) -> PyResult<Self> {
        let fd = open_device(py, path.into_os_string(), flags)?;
        Ok(Self {
            fd: Mutex::new(Some(Arc::new(fd))),
        })
    }

    /// Close the device; more than once is no error.
    ///
    /// A call in progress in another thread ends first.
    fn close(&self, py: Python<'_>) {
        let fd = self.lock().take();
        py.detach(|| drop(fd));
    }

    /// Return the descriptor's number.
    fn fileno(&self) -> PyResult<i32> {
        Ok(self.open_fd()?.as_raw_fd())
    }

    /// Return the device itself.
    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().open_fd()?;
        Ok(slf)
    }

    /// Close the device.
    #[pyo3(signature = (*_args), text_signature = "($self, *args)")]
    fn __exit__(&self, py: Python<'_>, _args: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    /// The descriptor's number.
    #[getter]
    fn fd(&self) -> PyResult<i32> {
        self.fileno()
    }

    /// Whether `close()` was called.
    #[getter]
    fn closed(&self) -> bool {
        self.lock().is_none()
    }

    /// One read(2) of at most size bytes; empty at the end.
    fn read<'py>(&self, py: Python<'py>, size: isize) -> PyResult<Bound<'py, PyBytes>> {
        self.transfer_to_bytes(py, size_bytes(size)?, None)
    }

    /// One write(2); return how many bytes were taken.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        self.transfer_from_buffer(py, data, None)
    }

    /// One pread(2) of at most size bytes; empty at the end.
    fn pread<'py>(
        &self,
        py: Python<'py>,
        size: isize,
        offset: i64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        self.transfer_to_bytes(py, size_bytes(size)?, Some(offset))
    }

    /// One pwrite(2); return how many bytes were taken.
    fn pwrite(&self, py: Python<'_>, data: &Bound<'_, PyAny>, offset: i64) -> PyResult<usize> {
        self.transfer_from_buffer(py, data, Some(offset))
    }

    /// Move the position with lseek(2); return the new one.
    fn lseek(&self, py: Python<'_>, offset: i64, whence: i32) -> PyResult<i64> {
        Ok(self.call(py, |fd| sys::lseek(fd, offset, whence))?)
    }

    /// One read(2) to a raw address, unchecked; return how many bytes came.
    fn read_to(&self, py: Python<'_>, address: usize, size: isize) -> PyResult<usize> {
        self.transfer_raw(
            py,
            Transfer {
                direction: Direction::Read,
                address,
                size: size_bytes(size)?,
                offset: None,
            },
        )
    }

    /// One write(2) from a raw address, unchecked; return how many went.
    fn write_from(&self, py: Python<'_>, address: usize, size: isize) -> PyResult<usize> {
        self.transfer_raw(
            py,
            Transfer {
                direction: Direction::Write,
                address,
                size: size_bytes(size)?,
                offset: None,
            },
        )
    }

    /// One pread(2) to a raw address, unchecked; return how many bytes came.
    fn pread_to(
        &self,
        py: Python<'_>,
        address: usize,
        size: isize,
        offset: i64,
    ) -> PyResult<usize> {
        self.transfer_raw(
            py,
            Transfer {
                direction: Direction::Read,
                address,
                size: size_bytes(size)?,
                offset: Some(offset),
            },
        )
    }

    /// One pwrite(2) from a raw address, unchecked; return how many went.
    fn pwrite_from(
        &self,
        py: Python<'_>,
        address: usize,
        size: isize,
        offset: i64,
    ) -> PyResult<usize> {
        self.transfer_raw(
            py,
            Transfer {
                direction: Direction::Write,
                address,
                size: size_bytes(size)?,
                offset: Some(offset),
            },
        )
    }

    /// One ioctl(2) with the argument as it is; return its result.
    #[pyo3(signature = (request, argument=0))]
    fn ioctl(&self, py: Python<'_>, request: u64, argument: u64) -> PyResult<i32> {
        Ok(self.call(py, |fd| sys::ioctl(fd, request, argument))?)
    }

    /// One ioctl(2) with each of count requests from first on, argument 0; return
    /// the errno of each as a byte, 0 of one that succeeds.
    fn ioctls<'py>(
        &self,
        py: Python<'py>,
        first: u64,
        count: isize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let count = positive("count", count)?;
        let mut errnos = sys::zeroed(count).map_err(|_| Error::Memory)?;
        self.call(py, |fd| {
            for (index, errno) in (0_u64..).zip(&mut errnos) {
                let result = sys::ioctl(fd, first.wrapping_add(index), 0);
                // The largest stands for those that do not fit.
                *errno = result
                    .err()
                    .map_or(0, |Errno(number)| u8::try_from(number).unwrap_or(u8::MAX));
            }
            Ok(())
        })?;
        Ok(PyBytes::new(py, &errnos))
    }

    /// Size of the device in bytes, by `MDRIVER_IOC_SIZE`.
    fn size(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.call(py, |fd| sys::ioctl_number(fd, uapi::IOC_SIZE))?)
    }

    /// Make every byte zero, by `MDRIVER_IOC_CLEAR`.
    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, |fd| sys::ioctl(fd, uapi::IOC_CLEAR, 0))?;
        Ok(())
    }

    /// Add to the 8 bytes at offset, modulo 2**64, by `MDRIVER_IOC_ADD`; return the
    /// number before.
    fn add(&self, py: Python<'_>, offset: u64, delta: u64) -> PyResult<u64> {
        Ok(self.call(py, |fd| sys::ioctl_add(fd, offset, delta))?)
    }

    /// Make calls of one kind, with next to nothing between them.
    ///
    /// Read, write, pread and pwrite move size bytes from or to a raw address, which
    /// nothing checks; each call's lies stride bytes behind the one before. Add is
    /// `MDRIVER_IOC_ADD` of 1 at offset. A call that moves less than size ends the
    /// run with `OSError`.
    #[pyo3(
        signature = (operation, calls, *, address=0, size=0, stride=0, offset=0),
        text_signature = "($self, operation, calls, *, address=0, size=0, stride=0, offset=0)"
    )]
    #[allow(clippy::too_many_arguments)] // Python's, by name
    fn repeat(
        &self,
        py: Python<'_>,
        operation: &str,
        calls: isize,
        address: usize,
        size: isize,
        stride: isize,
        offset: i64,
    ) -> PyResult<()> {
        let wanted = size_bytes(size)?;
        let stride = size_bytes(stride)?;
        let calls = positive("calls", calls)?;
        let operation = Operation::of(operation).ok_or(Error::NotAnOperation)?;
        let mut run = RepeatRun::new(operation, address, wanted, stride, offset, calls);
        let moved = self.call(py, |fd| run.calls(fd))?;
        if moved != wanted {
            return Err(Error::Moved { moved, wanted }.into());
        }
        Ok(())
    }

    /// Open a path and close it again, with next to nothing between.
    #[staticmethod]
    #[pyo3(
        signature = (path, calls, *, flags=libc::O_RDWR),
        text_signature = "(path, calls, *, flags=2)"
    )]
    fn repeat_open(py: Python<'_>, path: PathBuf, calls: isize, flags: i32) -> PyResult<()> {
        let encoded = encode_path(path.as_os_str())?;
        let mut run = RepeatOpenRun {
            calls: positive("calls", calls)?,
            path: &encoded,
            flags,
            done: 0,
        };
        let result = call_detached(py, || run.calls());
        Ok(name_path(result, path.into_os_string())?)
    }

    /// Count up the 8 bytes at offset with threads.
    ///
    /// Each thread adds 1 as often as increments says, by one of three methods:
    /// lock, with one lock for all: lock, pread, pwrite, unlock; add: one
    /// `MDRIVER_IOC_ADD`; racy: pread, pwrite, so increments may be lost. The first
    /// failure of one stops all and is raised. A signal is answered when the run
    /// has ended.
    #[pyo3(
        signature = (threads, increments, *, offset=0, start=COUNT_START, method="lock"),
        text_signature = "($self, threads, increments, *, offset=0, start=69, method='lock')"
    )]
    #[allow(clippy::too_many_arguments)] // Python's, by name
    fn count_up(
        &self,
        py: Python<'_>,
        threads: isize,
        increments: isize,
        offset: i64,
        start: u64,
        method: &str,
    ) -> PyResult<Count> {
        let threads = positive("threads", threads)?;
        let increments = positive("increments", increments)?;
        if threads > MAX_THREADS {
            return Err(Error::TooMany("threads", MAX_THREADS).into());
        }
        let method = Method::of(method).ok_or(Error::NotAMethod)?;
        let mut run = CountRun::new(threads, increments, offset, start, method);
        let moved = self.call(py, |fd| run.threads(fd))?;
        Ok(Count::new(&run, moved)?)
    }
}
