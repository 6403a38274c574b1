// SPDX-License-Identifier: GPL-2.0-only

//! use after free of the buffer
//!
//! To reset gives the buffer back.

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
    new_mutex,
    prelude::*,
    sync::Mutex,
};

const ZOO_IOC_RESET: u32 = _IO('z' as u32, 0);
const ZOO_SIZE: usize = 64;

module! {
    type: ZooModule,
    name: "zoo_use_after_free_rust",
    authors: ["The twinmod authors"],
    description: "twinmod zoo: use after free of the buffer",
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
            name: c"zoo_use_after_free_rust",
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

    fn read_iter(mut kiocb: Kiocb<'_, Self::Ptr>, to: &mut IovIterDest<'_>) -> Result<usize> {
        let me = kiocb.file();
        let buffer = me.buffer.lock();

        to.simple_read_from_buffer(kiocb.ki_pos_mut(), &buffer)
    }

    fn ioctl(me: Pin<&Self>, _file: &File, cmd: u32, _arg: usize) -> Result<isize> {
        if cmd != ZOO_IOC_RESET {
            return Err(ENOTTY);
        }
        drop(*me.buffer.lock());
        Ok(0)
    }
}
