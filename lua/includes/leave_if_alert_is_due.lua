-- Part of shortcuts, inside a leg's block: leaves the shortcut for the rules where an alert, an event
-- of a spend limit or a recharge may be due. Wants limits_ and account_ of the leg, unpacked.
if account_balance - account_used <= limits_quiet_above then
  break
end
if (limits_daily_limit >= 0
    and account_day_spend * 100 >= limits_daily_limit * SPEND_WARNING_PERCENT)
  or (limits_monthly_limit >= 0
    and account_month_spend * 100 >= limits_monthly_limit * SPEND_WARNING_PERCENT) then
  -- Told already? The marks of an account far from its limits stay packed.
  --- @unpack i8 as day_mark, i8 as month_mark from account_packed_day_mark
  if (limits_daily_limit >= 0 and day_mark < 2
      and account_day_spend * 100 >= limits_daily_limit * SPEND_WARNING_PERCENT
      and (day_mark < 1 or account_day_spend >= limits_daily_limit))
    or (limits_monthly_limit >= 0 and month_mark < 2
      and account_month_spend * 100 >= limits_monthly_limit * SPEND_WARNING_PERCENT
      and (month_mark < 1 or account_month_spend >= limits_monthly_limit)) then
    break
  end
end
