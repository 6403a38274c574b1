// SPDX-License-Identifier: GPL-2.0-only

//! missing owner, so that unload frees running code
//!
//! There is no field to forget: the registration fills it in.

use kernel::{
    fs::{
        File,
        Kiocb, //
    },
    iov::IovIterDest,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    prelude::*,
};

module! {
    type: ZooModule,
    name: "zoo_missing_owner_rust",
    authors: ["The twinmod authors"],
    description: "twinmod zoo: missing owner, so that unload frees running code",
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
            name: c"zoo_missing_owner_rust",
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

    fn read_iter(mut kiocb: Kiocb<'_, Self::Ptr>, to: &mut IovIterDest<'_>) -> Result<usize> {
        to.simple_read_from_buffer(kiocb.ki_pos_mut(), b"zoo\n")
    }
}
