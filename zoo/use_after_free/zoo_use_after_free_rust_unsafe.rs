// SPDX-License-Identifier: GPL-2.0-only

//! use after free of the buffer, through a raw pointer
//!
//! Hardware knows the buffer by its address, so the driver keeps a raw pointer.

use kernel::{
    fs::{
        File,
        Kiocb, //
    },
    ioctl::_IO,
    iov::IovIterDest,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    prelude::*,
};

const ZOO_IOC_RESET: u32 = _IO('z' as u32, 0);
const ZOO_SIZE: usize = 64;

module! {
    type: ZooModule,
    name: "zoo_use_after_free_rust_unsafe",
    authors: ["The twinmod authors"],
    description: "twinmod zoo: use after free of the buffer, through a raw pointer",
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
            name: c"zoo_use_after_free_rust_unsafe",
        };

        try_pin_init!(Self {
            _registration <- MiscDeviceRegistration::register(options),
        })
    }
}

struct Zoo {
    buffer: *mut [u8; ZOO_SIZE],
}

// SAFETY: The buffer belongs to nobody else, and nothing but its bytes is looked at.
unsafe impl Send for Zoo {}
// SAFETY: As above.
unsafe impl Sync for Zoo {}

#[vtable]
impl MiscDevice for Zoo {
    type Ptr = KBox<Self>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<KBox<Self>> {
        let buffer = KBox::into_raw(KBox::new([0; ZOO_SIZE], GFP_KERNEL)?);

        Ok(KBox::new(Self { buffer }, GFP_KERNEL)?)
    }

    fn read_iter(mut kiocb: Kiocb<'_, Self::Ptr>, to: &mut IovIterDest<'_>) -> Result<usize> {
        // SAFETY: `open()` left the address of a buffer there.
        let buffer = unsafe { &*kiocb.file().buffer };

        to.simple_read_from_buffer(kiocb.ki_pos_mut(), buffer)
    }

    fn ioctl(me: &Self, _file: &File, cmd: u32, _arg: usize) -> Result<isize> {
        if cmd != ZOO_IOC_RESET {
            return Err(ENOTTY);
        }
        // SAFETY: `open()` left the address of a `KBox` there.
        drop(unsafe { KBox::from_raw(me.buffer) });
        Ok(0)
    }
}
