// SPDX-License-Identifier: GPL-2.0-only

//! lock forgotten on one path
//!
//! Who adds holds the lock; who asks for the total does not.

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
};

const ZOO_IOC_ADD: u32 = _IO('z' as u32, 0);
const ZOO_IOC_TOTAL: u32 = _IO('z' as u32, 1);

module! {
    type: ZooModule,
    name: "zoo_lock_forgotten_rust",
    authors: ["The twinmod authors"],
    description: "twinmod zoo: lock forgotten on one path",
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
            name: c"zoo_lock_forgotten_rust",
        };

        try_pin_init!(Self {
            _registration <- MiscDeviceRegistration::register(options),
        })
    }
}

struct State {
    total: i32,
}

#[pin_data]
struct Zoo {
    #[pin]
    state: Mutex<State>,
}

#[vtable]
impl MiscDevice for Zoo {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                state <- new_mutex!(State { total: 0 }),
            }),
            GFP_KERNEL,
        )
    }

    fn ioctl(me: Pin<&Self>, _file: &File, cmd: u32, _arg: usize) -> Result<isize> {
        match cmd {
            ZOO_IOC_ADD => {
                let mut state = me.state.lock();

                state.total = state.total.wrapping_add(1) & i32::MAX;
                Ok(0)
            }
            ZOO_IOC_TOTAL => Ok(me.state.total as isize),
            _ => Err(ENOTTY),
        }
    }
}
