"""Google's robot pushing data set, read as it was published.

One Example a push, JPEG frames of 512 x 640 x 3. Original: alexlee-gk/video_prediction,
google_robot_dataset.py; its folders are push_train, push_testseen and push_testnovel.
"""

from tfvid.data.stepwise import StepwiseFormat


class GoogleRobotFormat(StepwiseFormat):
    """States and actions are vector, pitch and yaw of the arm: [5]."""

    DEFAULTS = {"context_frames": 2, "sequence_length": 15}
    SPLIT_FOLDERS = {
        "train": ("train", "push_train"),
        "val": ("val", "push_testseen"),
        "test": ("test", "push_testnovel"),
    }
    SUBFOLDERS = ("push",)
    IMAGES = ("move/{}/image/encoded",)
    ARRAYS = {
        "states": ("move/{}/endeffector/vec_pitch_yaw", 5),
        "actions": ("move/{}/commanded_pose/vec_pitch_yaw", 5),
    }
