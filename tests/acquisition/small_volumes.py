"""A small simulated microscope that takes volumes."""

from acquisition.settings import LimitsSettings, MicroscopeSettings
from acquisition.volumes.settings import VolumeSettings

SMALL = """
#py pyDevice,Camera,acquisition.simulated.devices,FluorescenceCamera
#py pyDevice,Focus,acquisition.simulated.devices,SimulatedFocus
#py Property,Camera,Width,64
#py Property,Camera,Height,48
#py Property,Camera,ChannelDepth_um,20
#py Property,Camera,ParticlesPerVolume,30
#py Property,Camera,Diffusion_um2_s,0
#py Property,Camera,FrameRate,200
#py Property,Camera,RealTime,0
#py Property,Focus,StartPosition_um,10
#py Property,Focus,LowerLimit_um,0
#py Property,Focus,UpperLimit_um,40
#py Property,Focus,Lag_s,0
#py Property,Focus,Speed_um_s,1000000
#py Property,Focus,SequenceMaxLength,1000
{extra}
Property,Core,Initialize,1
#py Property,Core,Camera,Camera
#py Property,Core,Focus,Focus
Property,Core,AutoShutter,0
"""
LIMITS = LimitsSettings(min_focus_um=2, max_focus_um=30)


def small_settings(folder, *extra, **more):
    """Settings of a microscope with extra `Device,Property,Value` lines."""
    path = folder / "volumes.cfg"
    path.write_text(SMALL.format(extra="\n".join(f"#py Property,{line}" for line in extra)))
    return MicroscopeSettings(config=str(path), pixel_size_um=0.2, **more)


def small_volume(**more):
    """Five slices, 0.5 um apart, from 8 um on."""
    return VolumeSettings(**{"slices": 5, "z_step_um": 0.5, "start_um": 8.0} | more)


def take(stream, count):
    """The next volumes."""
    frames = []
    while len(frames) < count:
        frame = stream.read(5.0)
        if frame is not None:
            frames.append(frame)
    return frames


def drain(stream):
    """What is left after a stop."""
    frames = []
    while not stream.ended:
        frame = stream.read(0.1)
        if frame is not None:
            frames.append(frame)
    return frames
