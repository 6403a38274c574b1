// SPDX-License-Identifier: GPL-2.0-only

//! use of the device after release
//!
//! The last one that opened the device is remembered, and may be gone.

use kernel::{
    fs::File,
    ioctl::_IO,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    prelude::*,
};

const ZOO_IOC_LAST: u32 = _IO('z' as u32, 0);

module! {
    type: ZooModule,
    name: "zoo_use_after_release_rust",
    authors: ["The twinmod authors"],
    description: "twinmod zoo: use of the device after release",
    license: "GPL",
}

#[pin_data]
struct ZooModule {
    #[pin]
    _registration: MiscDeviceRegistration<Zoo>,
}

impl kernel::InPlaceModule for ZooModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: A module is initialised once.
        unsafe { LAST.init() };

        let options = MiscDeviceOptions {
            name: c"zoo_use_after_release_rust",
        };

        try_pin_init!(Self {
            _registration <- MiscDeviceRegistration::register(options),
        })
    }
}

kernel::sync::global_lock! {
    // SAFETY: The module initialises it before the device is there.
    unsafe(uninit) static LAST: Mutex<Option<&'static Zoo>> = None;
}

struct Zoo {
    number: i32,
}

#[vtable]
impl MiscDevice for Zoo {
    type Ptr = KBox<Self>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<KBox<Self>> {
        let zoo = KBox::new(Self { number: 7 }, GFP_KERNEL)?;

        *LAST.lock() = Some(&zoo);
        Ok(zoo)
    }

    fn ioctl(_me: &Self, _file: &File, cmd: u32, _arg: usize) -> Result<isize> {
        if cmd != ZOO_IOC_LAST {
            return Err(ENOTTY);
        }
        let last = LAST.lock().ok_or(ENODEV)?;

        Ok(last.number as isize)
    }
}
