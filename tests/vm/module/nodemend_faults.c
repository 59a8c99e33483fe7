// SPDX-License-Identifier: GPL-2.0
/*
 * Faults that nothing else can provoke in a distribution's kernel, for the virtual machines of the
 * tests alone: write the name of one to /proc/nodemend-faults.
 */
#include <linux/edac.h>
#include <linux/etherdevice.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/platform_device.h>
#include <linux/proc_fs.h>
#include <linux/sched/clock.h>
#include <linux/thermal.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <net/devlink.h>

/*
 * Longer than the guest's rcu_cpu_stall_timeout and twice its watchdog_thresh together: whoever
 * complains first makes the other begin to count anew.
 */
#define LOCKUP_NANOSECONDS (14ULL * NSEC_PER_SEC)

#define INJECTED "injected by nodemend"

/* Not mdelay(), whose loops take longer where instructions are interpreted. */
static void spin(void)
{
	u64 end = local_clock() + LOCKUP_NANOSECONDS;

	while (local_clock() < end)
		cpu_relax();
}

static int spin_without_schedule(void *unused)
{
	preempt_disable();
	spin();
	preempt_enable();
	return 0;
}

static int lock_up(void)
{
	struct task_struct *task = kthread_create(spin_without_schedule, NULL, "nodemend-lockup");

	if (IS_ERR(task))
		return PTR_ERR(task);
	/* The other CPUs go on. */
	kthread_bind(task, 0);
	wake_up_process(task);
	return 0;
}

/* --- memory errors --- */

/* drivers/edac/edac_mc.h, which no package has. */
struct mem_ctl_info *edac_mc_alloc(unsigned int mc_num, unsigned int n_layers,
				   struct edac_mc_layer *layers, unsigned int sz_pvt);
int edac_mc_add_mc_with_groups(struct mem_ctl_info *mci, const struct attribute_group **groups);
void edac_mc_free(struct mem_ctl_info *mci);
void edac_mc_handle_error(const enum hw_event_mc_err_type type, struct mem_ctl_info *mci,
			  const u16 error_count, const unsigned long page_frame_number,
			  const unsigned long offset_in_page, const unsigned long syndrome,
			  const int top_layer, const int mid_layer, const int low_layer,
			  const char *msg, const char *other_detail);

static struct mem_ctl_info *memory;
static struct device memory_device = { .init_name = "nodemend-memory" };

static int memory_error(enum hw_event_mc_err_type type)
{
	if (!memory)
		return -ENODEV;
	edac_mc_handle_error(type, memory, 1, 0x1234, 0, 0, 0, 0, -1, INJECTED, "");
	return 0;
}

static int __init make_memory(void)
{
	struct edac_mc_layer layers[] = {
		{ .type = EDAC_MC_LAYER_CHIP_SELECT, .size = 1, .is_virt_csrow = true },
		{ .type = EDAC_MC_LAYER_CHANNEL, .size = 1, .is_virt_csrow = false },
	};
	struct mem_ctl_info *mci;
	int error;

	error = device_register(&memory_device);
	if (error)
		return error;
	mci = edac_mc_alloc(0, ARRAY_SIZE(layers), layers, 0);
	if (!mci)
		return -ENOMEM;
	mci->pdev = &memory_device;
	mci->mod_name = KBUILD_MODNAME;
	mci->ctl_name = KBUILD_MODNAME;
	mci->dev_name = "nodemend-memory";
	mci->edac_cap = EDAC_FLAG_SECDED;
	error = edac_mc_add_mc_with_groups(mci, NULL);
	if (error) {
		edac_mc_free(mci);
		return error;
	}
	memory = mci;
	return 0;
}

/* --- a network card that sends nothing --- */

static netdev_tx_t send_nothing(struct sk_buff *skb, struct net_device *dev)
{
	netif_stop_queue(dev);
	dev_kfree_skb(skb);
	return NETDEV_TX_OK;
}

static void timed_out(struct net_device *dev, unsigned int queue)
{
	netif_wake_queue(dev);
}

static int open_card(struct net_device *dev)
{
	netif_start_queue(dev);
	netif_carrier_on(dev);
	return 0;
}

static int stop_card(struct net_device *dev)
{
	netif_stop_queue(dev);
	return 0;
}

static const struct net_device_ops card_ops = {
	.ndo_open = open_card,
	.ndo_stop = stop_card,
	.ndo_start_xmit = send_nothing,
	.ndo_tx_timeout = timed_out,
};

static void set_up_card(struct net_device *dev)
{
	ether_setup(dev);
	eth_hw_addr_random(dev);
	dev->netdev_ops = &card_ops;
	dev->watchdog_timeo = HZ;
}

static struct net_device *card;

static int __init make_card(void)
{
	int error;

	card = alloc_netdev(0, "stuck%d", NET_NAME_UNKNOWN, set_up_card);
	if (!card)
		return -ENOMEM;
	error = register_netdev(card);
	if (error) {
		free_netdev(card);
		card = NULL;
	}
	return error;
}

/* --- a device whose driver reports of its health --- */

static const struct devlink_ops devlink_operations;
static const struct devlink_health_reporter_ops reporter_operations = { .name = "firmware" };
static struct devlink_health_reporter *reporter;

static int report_ill(void)
{
	if (!reporter)
		return -ENODEV;
	return devlink_health_report(reporter, INJECTED, NULL);
}

static int probe_ill(struct platform_device *device)
{
	struct devlink_health_reporter *made;
	struct devlink *devlink;
	int error = 0;

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 15, 0)
	devlink = devlink_alloc(&devlink_operations, 0);
#else
	devlink = devlink_alloc(&devlink_operations, 0, &device->dev);
#endif
	if (!devlink)
		return -ENOMEM;
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 18, 0)
	made = devlink_health_reporter_create(devlink, &reporter_operations, 0, NULL);
#else
	made = devlink_health_reporter_create(devlink, &reporter_operations, NULL);
#endif
	if (IS_ERR(made)) {
		devlink_free(devlink);
		return PTR_ERR(made);
	}
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 15, 0)
	error = devlink_register(devlink, &device->dev);
#else
	devlink_register(devlink);
#endif
	if (!error)
		reporter = made;
	return error;
}

/* The event names it. */
static struct platform_driver ill_driver = { .driver.name = "nodemend-ill" };

static int __init make_ill(void)
{
	return PTR_ERR_OR_ZERO(platform_create_bundle(&ill_driver, probe_ill, NULL, 0, NULL, 0));
}

/* --- a place that gets hot --- */

#define HOT 90000
#define CRITICAL 100000

static struct thermal_zone_device *zone;
static int temperature = 20000;

/* The kernel runs kernel.poweroff_cmd then: whoever writes this has changed it before. */
static int heat(void)
{
	if (!zone)
		return -ENODEV;
	temperature = CRITICAL + 5000;
	thermal_zone_device_update(zone, THERMAL_EVENT_UNSPECIFIED);
	return 0;
}

static int get_temperature(struct thermal_zone_device *zone, int *to)
{
	*to = temperature;
	return 0;
}

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 9, 0)
static int get_trip_type(struct thermal_zone_device *zone, int trip, enum thermal_trip_type *to)
{
	*to = trip ? THERMAL_TRIP_CRITICAL : THERMAL_TRIP_HOT;
	return 0;
}

static int get_trip_temperature(struct thermal_zone_device *zone, int trip, int *to)
{
	*to = trip ? CRITICAL : HOT;
	return 0;
}

static struct thermal_zone_device_ops zone_operations = {
	.get_temp = get_temperature,
	.get_trip_type = get_trip_type,
	.get_trip_temp = get_trip_temperature,
};

static struct thermal_zone_device *register_zone(void)
{
	return thermal_zone_device_register("nodemend", 2, 0, NULL, &zone_operations, NULL, 0, 0);
}
#else
static const struct thermal_zone_device_ops zone_operations = { .get_temp = get_temperature };

static struct thermal_zone_device *register_zone(void)
{
	static const struct thermal_trip trips[] = {
		{ .temperature = HOT, .type = THERMAL_TRIP_HOT },
		{ .temperature = CRITICAL, .type = THERMAL_TRIP_CRITICAL },
	};

	return thermal_zone_device_register_with_trips("nodemend", trips, ARRAY_SIZE(trips), NULL,
						       &zone_operations, NULL, 0, 0);
}
#endif

static int __init make_zone(void)
{
	struct thermal_zone_device *made = register_zone();
	int error;

	if (IS_ERR(made))
		return PTR_ERR(made);
	error = thermal_zone_device_enable(made);
	if (error) {
		thermal_zone_device_unregister(made);
		return error;
	}
	zone = made;
	return 0;
}

/* --- */

static int provoke(const char *fault)
{
	if (sysfs_streq(fault, "lockup"))
		return lock_up();
	if (sysfs_streq(fault, "warning")) {
		WARN(1, "%s\n", INJECTED);
		return 0;
	}
	if (sysfs_streq(fault, "corrected-memory"))
		return memory_error(HW_EVENT_ERR_CORRECTED);
	if (sysfs_streq(fault, "uncorrected-memory"))
		return memory_error(HW_EVENT_ERR_UNCORRECTED);
	if (sysfs_streq(fault, "ill-device"))
		return report_ill();
	if (sysfs_streq(fault, "heat"))
		return heat();
	return -EINVAL;
}

static ssize_t on_write(struct file *file, const char __user *from, size_t length, loff_t *at)
{
	char fault[32];
	int error;

	if (length >= sizeof(fault))
		return -EINVAL;
	if (copy_from_user(fault, from, length))
		return -EFAULT;
	fault[length] = 0;
	error = provoke(fault);
	return error ? error : (ssize_t)length;
}

static const struct proc_ops operations = { .proc_write = on_write };

static int __init begin(void)
{
	int error = make_card();

	if (error)
		return error;
	error = make_memory();
	if (error)
		pr_warn("no memory controller: %d\n", error);
	error = make_ill();
	if (error)
		pr_warn("no device that is ill: %d\n", error);
	error = make_zone();
	if (error)
		pr_warn("no thermal zone: %d\n", error);
	return proc_create("nodemend-faults", 0200, NULL, &operations) ? 0 : -ENOMEM;
}

/* Never unloaded: the machine ends before. */
module_init(begin);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Faults for the tests of nodemend");
