"""Opening untrusted pictures and videos; shared by the stages that look at pixels."""
