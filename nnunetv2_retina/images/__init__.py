"""The one decoder of TIFF, PNG, JPEG and BMP files, for pre-training, conversion and prediction alike; voxel sizes."""
