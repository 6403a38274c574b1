// SPDX-License-Identifier: GPL-2.0-only

//! unchecked user copy
//!
//! Nobody looks at how much of the caller's buffer was there.

use kernel::{
    fs::{
        File,
        Kiocb, //
    },
    iov::IovIterSource,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    new_mutex,
    prelude::*,
    sync::Mutex,
};

const ZOO_SIZE: usize = 4096;

module! {
    type: ZooModule,
    name: "zoo_unchecked_copy_rust",
    authors: ["The twinmod authors"],
    description: "twinmod zoo: unchecked user copy",
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
            name: c"zoo_unchecked_copy_rust",
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

    fn write_iter(kiocb: Kiocb<'_, Self::Ptr>, from: &mut IovIterSource<'_>) -> Result<usize> {
        let count = from.len().min(ZOO_SIZE);

        from.copy_from_iter(&mut kiocb.file().buffer.lock()[..count]);
        Ok(count)
    }
}
