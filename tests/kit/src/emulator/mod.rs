//! A camera's uplink, emulated: two TUN devices in two network namespaces, real kernel TCP at both ends, and between them a
//! link with rate, queue, delay, jitter, loss, reordering, duplicates, black holes, resets and changing addresses, to a
//! script. Traffic never leaves the namespaces. `cargo xtask link` is the same for a command line.
//!
//! * [`Uplink`] the namespaces and the driver; [`Setup`] what it is made of; [`Profile`] links with names
//! * [`Emulator`] the link as a value on a virtual clock; [`Path`] one way of it; [`Change`] what happens to it
//! * [`be_prompt`] for threads that measure; [`Counters`] what it tells; [`relay`] services of this machine as services of the far end
//!
//! ```no_run
//! use camagent_testkit::emulator::{Change, FAR, Flows, Setup, Uplink};
//! let Some(uplink) = Uplink::of(Setup::profile("dsl-2m-bloat").unwrap()) else { return };
//! let server = uplink.far.within(|| std::net::TcpListener::bind((FAR, 443))).unwrap();
//! let camera = uplink.near.within(|| std::net::TcpStream::connect((FAR, 443))).unwrap();
//! uplink.change(Change::Reset(Flows::Known));
//! println!("{}", uplink.counters());
//! ```

mod chance;
mod change;
mod counters;
mod driver;
mod flows;
mod model;
mod packet;
mod pipe;
mod profile;
pub mod relay;
mod tun;
mod uplink;

pub use chance::Loss;
pub use change::{Change, Setting, split_way, time};
pub use counters::{Counters, Delays, Dropped, WayCounters};
pub use driver::be_prompt;
pub use flows::{Existing, Flow, Flows, Way};
pub use model::{Emulator, FAR, NEAR, Setup, outside};
pub use pipe::Path;
pub use profile::Profile;
pub use uplink::Uplink;
