// SPDX-License-Identifier: GPL-2.0-only

//! integer overflow of offset plus length
//!
//! Offset plus length is compared with the size.

use kernel::{
    fs::File,
    ioctl::_IO,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    new_mutex,
    prelude::*,
    sync::Mutex,
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};

const ZOO_IOC_CLEAR: u32 = _IO('z' as u32, 0);
const ZOO_SIZE: usize = 4096;

module! {
    type: ZooModule,
    name: "zoo_offset_overflow_rust",
    authors: ["The twinmod authors"],
    description: "twinmod zoo: integer overflow of offset plus length",
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
            name: c"zoo_offset_overflow_rust",
        };

        try_pin_init!(Self {
            _registration <- MiscDeviceRegistration::register(options),
        })
    }
}

#[pin_data]
struct Zoo {
    #[pin]
    buffer: Mutex<KVec<u8>>,
}

#[vtable]
impl MiscDevice for Zoo {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Pin<KBox<Self>>> {
        let buffer = KVec::zeroed(ZOO_SIZE, GFP_KERNEL)?;

        KBox::pin_init(
            pin_init!(Self {
                buffer <- new_mutex!(buffer),
            }),
            GFP_KERNEL,
        )
    }

    fn ioctl(me: Pin<&Self>, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        if cmd != ZOO_IOC_CLEAR {
            return Err(ENOTTY);
        }
        let mut reader = UserSlice::new(UserPtr::from_addr(arg), 16).reader();
        let offset = reader.read::<u64>()? as usize;
        let len = reader.read::<u64>()? as usize;

        if offset + len > ZOO_SIZE {
            return Err(EINVAL);
        }
        me.buffer.lock()[offset..offset + len].fill(0);
        Ok(0)
    }
}
