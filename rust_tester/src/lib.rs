// SPDX-License-Identifier: GPL-2.0-only
//! The extension module: it only wires.
//!
//! Twin of `c_tester/src/module.c`: the same names and order.

mod count;
mod device;
mod error;
mod repeat;
mod sys;
mod uapi;

/// Calls a memory device through its system calls: the Rust twin.
#[pyo3::pymodule]
mod _native {
    use pyo3::prelude::*;

    use crate::uapi;

    #[pymodule_export]
    use crate::count::Count;
    #[pymodule_export]
    use crate::device::Device;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("TESTER", "rust")?;
        module.add("IOC_SIZE", uapi::IOC_SIZE)?;
        module.add("IOC_CLEAR", uapi::IOC_CLEAR)?;
        module.add("IOC_ADD", uapi::IOC_ADD)
    }
}
