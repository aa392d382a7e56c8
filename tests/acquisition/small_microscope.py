"""A small simulated microscope, as a configuration file made on the spot."""

from acquisition.settings import MicroscopeSettings

SMALL = """
#py pyDevice,Camera,acquisition.simulated.devices,SimulatedCamera
#py pyDevice,Focus,acquisition.simulated.devices,SimulatedFocus
#py pyDevice,Pump,acquisition.simulated.devices,SimulatedPump
#py Property,Camera,Width,320
#py Property,Camera,Height,256
#py Property,Camera,ParticlesPerFrame,30
#py Property,Camera,FrameRate,{rate}
{extra}
Property,Core,Initialize,1
#py Property,Core,Camera,Camera
#py Property,Core,Focus,Focus
Property,Core,AutoShutter,0
#py Property,Pump,FlowRate,0.0246
"""


def small_config(folder, *extra, rate=100):
    """Write a configuration with extra `Device,Property,Value` lines; returns its path."""
    path = folder / "small.cfg"
    path.write_text(SMALL.format(rate=rate, extra="\n".join(f"#py Property,{line}" for line in extra)))
    return path


def small_settings(folder, *extra, rate=100, **more):
    return MicroscopeSettings(config=str(small_config(folder, *extra, rate=rate)), **more)
