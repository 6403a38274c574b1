// SPDX-License-Identifier: GPL-2.0-only

//! missing bounds on an offset of an ioctl
//!
//! The index comes from the caller, and the table has an end.

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

const ZOO_IOC_LOOK: u32 = _IO('z' as u32, 0);

static TABLE: [u8; 16] = [1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

module! {
    type: ZooModule,
    name: "zoo_ioctl_bounds_rust",
    authors: ["The twinmod authors"],
    description: "twinmod zoo: missing bounds on an offset of an ioctl",
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
            name: c"zoo_ioctl_bounds_rust",
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
        match cmd {
            ZOO_IOC_LOOK => Ok(TABLE[arg] as isize),
            _ => Err(ENOTTY),
        }
    }
}
