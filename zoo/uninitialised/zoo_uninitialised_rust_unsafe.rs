// SPDX-License-Identifier: GPL-2.0-only

//! uninitialised memory given to user space, by unsafe code
//!
//! Only the hardware fills the buffer, so nobody pays for zeros; the length is set by hand.

use kernel::{
    fs::{
        File,
        Kiocb, //
    },
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    new_mutex,
    prelude::*,
    sync::Mutex,
};

const ZOO_SIZE: usize = 2048;

module! {
    type: ZooModule,
    name: "zoo_uninitialised_rust_unsafe",
    authors: ["The twinmod authors"],
    description: "twinmod zoo: uninitialised memory given to user space, by unsafe code",
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
            name: c"zoo_uninitialised_rust_unsafe",
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
        let mut buffer = KVec::with_capacity(ZOO_SIZE, GFP_KERNEL)?;

        // SAFETY: The capacity is `ZOO_SIZE`, and any byte is a valid `u8`.
        unsafe { buffer.inc_len(ZOO_SIZE) };

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

    fn write_iter(mut kiocb: Kiocb<'_, Self::Ptr>, from: &mut IovIterSource<'_>) -> Result<usize> {
        let begin = usize::try_from(kiocb.ki_pos())?;
        let me = kiocb.file();
        let mut buffer = me.buffer.lock();
        let count = from.copy_from_iter(buffer.get_mut(begin..).ok_or(ENOSPC)?);

        *kiocb.ki_pos_mut() += count as i64;
        Ok(count)
    }
}
