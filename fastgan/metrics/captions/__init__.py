"""How well images show what their captions say."""
