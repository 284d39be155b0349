//! What the promise tests share: real sockets on loopback, a server in the process, an agent with a clip for a camera.
//!
//! Everything that reads what the product writes is written from the RFCs and shares no parser with it, so that one
//! mistake cannot be made twice. Nothing sleeps for luck: whoever waits, waits for a condition, with a deadline.
//!
//! * [`clip`], [`script`], [`nal`] the bundled clips as endless flows of frames, each unit with a name of its own
//! * [`camera`] plays a script through an agent, and knows what it pushed; [`events`] what the agent told meanwhile
//! * [`rtsp_camera`] a camera with RTSP and HTTP servers of its own, well-behaved or not
//! * [`netns`] a cloud, a router with real NAT and a site; [`gstreamer_camera`] somebody else's camera to put there
//! * [`server`] the server in process, on ports that it keeps over a restart; [`cloud_process`] as a process; [`http`] its API
//! * [`recordings`], [`journal`] what lies in the server's folder and on an agent's flash, read by somebody else
//! * [`emulator`] a bad uplink between two kernels: rate, queue, delay, loss, resets, changing addresses
//! * [`allocations`] heap calls by thread; [`card`] a file system of its own that can be frozen and filled
//! * [`accelerator`] a middlebox that takes everything at once and lets it go slowly
//! * [`link`] a TCP link that counts, cuts, resets and swallows; [`proxy`] somebody else's HTTP proxy
//! * [`rtsp`], [`depacketize`], [`viewer`] an RTSP viewer that keeps every unit with its time; [`program`] other
//!   people's programs; [`players`] ffmpeg, GStreamer and retina as judges; [`copied`] ffmpeg of whole streams with their times;
//!   [`bridged`] an outage that both see nothing of
//! * [`daemon`] the program `camagentd`, running
//! * [`c_library`] the C library as a vendor has it, and C programs linked with it
//! * [`raw_agent`], [`raw_server`] either end of the WebSocket, saying whatever a test wants said
//! * [`logs`] everything that was logged; [`wait`] conditions with deadlines

pub mod accelerator;
pub mod allocations;
pub mod bridged;
pub mod c_library;
pub mod camera;
pub mod card;
pub mod clip;
pub mod cloud_process;
pub mod copied;
pub mod daemon;
pub mod depacketize;
pub mod emulator;
pub mod events;
pub mod gstreamer_camera;
pub mod http;
pub mod journal;
pub mod link;
pub mod logs;
pub mod nal;
pub mod netns;
pub mod players;
pub mod program;
pub mod proxy;
pub mod raw_agent;
pub mod raw_server;
pub mod recordings;
pub mod rtsp;
pub mod rtsp_camera;
pub mod script;
pub mod server;
pub mod viewer;
pub mod wait;

pub use accelerator::Accelerator;
pub use camagent_core as core;
pub use camera::Camera;
pub use card::Card;
pub use cloud_process::CloudProcess;
pub use daemon::Daemon;
pub use gstreamer_camera::GStreamerCamera;
pub use http::Api;
pub use link::Link;
pub use netns::Nat;
pub use proxy::Proxy;
pub use raw_server::RawServer;
pub use rtsp_camera::RtspCamera;
pub use script::Script;
pub use server::CloudServer;
pub use viewer::Viewer;
