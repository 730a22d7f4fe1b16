"""What Ray's launcher, KubeRay and SkyPilot read, each made from a cluster file alone."""
