-- name: hold_switch_epoch
-- Lets no switch be tripped or reset until the commit; others who go to sleep do not wait.
SELECT epoch FROM switch_epochs FOR SHARE
