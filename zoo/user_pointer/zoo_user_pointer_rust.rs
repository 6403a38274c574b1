// SPDX-License-Identifier: GPL-2.0-only

//! user pointer dereferenced directly
//!
//! The address is the caller's, and the driver stores to it as if it were its own.

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

const ZOO_IOC_SIZE: u32 = _IO('z' as u32, 0);
const ZOO_SIZE: u64 = 4096;

module! {
    type: ZooModule,
    name: "zoo_user_pointer_rust",
    authors: ["The twinmod authors"],
    description: "twinmod zoo: user pointer dereferenced directly",
    license: "GPL",
}

#[pin_data]
struct ZooModule {
    #[pin]
    _registration: MiscDeviceRegistration<Zoo>,
}

impl kernel::InPlaceModule for ZooModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        let options = MiscDeviceOptions {
            name: c"zoo_user_pointer_rust",
        };

        try_pin_init!(Self {
            _registration <- MiscDeviceRegistration::register(options),
        })
    }
}

struct Zoo;

#[vtable]
impl MiscDevice for Zoo {
    type Ptr = KBox<Self>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<KBox<Self>> {
        Ok(KBox::new(Self, GFP_KERNEL)?)
    }

    fn ioctl(_me: &Self, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        if cmd != ZOO_IOC_SIZE {
            return Err(ENOTTY);
        }
        *(arg as *mut u64) = ZOO_SIZE;
        Ok(0)
    }
}
